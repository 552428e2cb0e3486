-- One S3 request: what it asks for, the time it takes, the fault that strikes it, the answer.
--
-- An object's bytes are left to nginx's static handler (sendfile, ranges, limit_rate): `serve`
-- checks the conditions, points the request at the object's file and returns. All else is
-- answered here.

local faults = require("faults")
local listing = require("listing")
local store = require("store")
local writes = require("writes")

local M = {}
local model, counts = ngx.shared.model, ngx.shared.counts
local FOREVER = 86400

local HTML = "<!DOCTYPE html>\n<html><head><title>Sign in to the network</title></head><body>"
    .. string.rep("<p>This network asks you to sign in before you go on.</p>\n", 40)
    .. "</body></html>\n"

local MESSAGES = {
    AccessDenied = "Access Denied",
    BadDigest = "The Content-MD5 you specified did not match what we received.",
    BucketNotEmpty = "The bucket you tried to delete is not empty",
    InternalError = "We encountered an internal error. Please try again.",
    InvalidPart = "One or more of the specified parts could not be found.",
    InvalidRange = "The requested range is not satisfiable",
    NoSuchBucket = "The specified bucket does not exist",
    NoSuchKey = "The specified key does not exist.",
    NoSuchUpload = "The specified upload does not exist.",
    NotImplemented = "A header or query you provided implies functionality that is not implemented",
    PreconditionFailed = "At least one of the pre-conditions you specified did not hold",
    SlowDown = "Please reduce your request rate.",
}

-- Send part of a body that says it is longer, then break off as the fault says.
local function break_off(fault, length, first)
    ngx.header["Content-Length"] = length
    ngx.send_headers()
    ngx.print(first)
    ngx.flush(true)
    if fault.kind == "stall" then ngx.sleep(FOREVER) end
    -- 444 resets the connection (reset_timedout_connection), ERROR closes it in good order.
    return ngx.exit(fault.kind == "reset_body" and 444 or ngx.ERROR)
end

local BREAKS = { stall = true, reset_body = true, early_end = true }

function M.answer(status, body, headers)
    ngx.status = status
    ngx.header["Content-Type"] = "application/xml"
    for name, value in pairs(headers or {}) do ngx.header[name] = value end
    body = body or ""
    local fault = ngx.ctx.fault
    if fault and fault.kind == "truncated_xml" then body = body:sub(1, math.floor(#body / 2)) end
    if fault and BREAKS[fault.kind] and #body > 1 then
        return break_off(fault, #body, body:sub(1, math.min(fault.after, math.floor(#body / 2))))
    end
    if status ~= 204 and status ~= 304 then ngx.header["Content-Length"] = #body end
    ngx.print(body)
    return ngx.exit(status == 200 and ngx.HTTP_OK or status)
end

function M.fail(status, code)
    return M.answer(status, listing.HEAD .. "<Error><Code>" .. code .. "</Code><Message>"
        .. MESSAGES[code] .. "</Message><Resource>" .. listing.xml(ngx.var.request_uri)
        .. "</Resource><RequestId>" .. ngx.var.s3_id .. "</RequestId></Error>")
end

-- The first and last byte that a Range asks for; nil, nil: no (valid) range; false: not
-- satisfiable.
local function asked_range(size)
    local header = ngx.var.http_range
    if not header then return nil end
    local first, last = header:match("^bytes=(%d*)%-(%d*)$")
    first, last = tonumber(first), tonumber(last)
    if not first and not last or first and last and last < first then return nil end
    if not first then
        if last == 0 or size == 0 then return false end
        return math.max(size - last, 0), size - 1
    end
    if first >= size then return false end
    return first, math.min(last or size - 1, size - 1)
end

-- The faults that strike before anything is said. True: the request is over.
local function strike_early(fault)
    local kind = fault.kind
    if kind == "slow_down" then return M.fail(503, "SlowDown")
    elseif kind == "internal_error" then return M.fail(500, "InternalError")
    elseif kind == "forbidden" then return M.fail(403, "AccessDenied")
    elseif kind == "reset" then return ngx.exit(444)
    elseif kind == "never_answer" then ngx.sleep(FOREVER)
    elseif kind == "delay" then ngx.sleep(fault.seconds)
    elseif kind == "html" then
        ngx.ctx.fault = nil
        ngx.req.clear_header("If-Match") -- else nginx itself would answer 412
        return M.answer(200, HTML, { ["Content-Type"] = "text/html" })
    end
end

-- The faults in the body of an object. Returns only if the static handler is to go on.
local function strike_body(fault, object, first, last)
    local kind = fault.kind
    if kind == "slow_drip" then
        ngx.var.limit_rate = fault.rate
    elseif kind == "whole_object" then
        ngx.req.clear_header("Range")
    elseif kind == "wrong_range" and first then
        -- As long as the one asked for, where the object is long enough to hold another.
        local length = last - first + 1
        local other = (first + length) % object.size
        if other + length > object.size then other = math.max(object.size - length, 0) end
        if other == first then other = math.max(first - length, 0) end
        local ending = math.min(other + length, object.size) - 1
        if other == first then ending = math.max(first, last - 1) end
        ngx.req.set_header("Range", "bytes=" .. other .. "-" .. ending)
    elseif kind == "wrong_etag" then
        -- Of this answer alone: the object itself is shared with the requests to come.
        ngx.ctx.object = setmetatable({ etag = string.rep("0", 32) }, { __index = object })
    elseif BREAKS[kind] then
        local from, size = first or 0, (last or object.size - 1) - (first or 0) + 1
        local file = assert(io.open(store.directory .. "/data/" .. object.file, "rb"))
        file:seek("set", from)
        local bytes = file:read(math.min(fault.after, math.max(size - 1, 0))) or ""
        file:close()
        ngx.status = first and 206 or 200
        if first then
            ngx.header["Content-Range"] = "bytes " .. from .. "-" .. last .. "/" .. object.size
        end
        break_off(fault, size, bytes)
    end
end

local function strong(tags, etag)
    for tag in tags:gmatch("[^,%s]+") do
        if tag == "*" or tag:gsub('"', "") == etag then return true end
    end
    return false
end

local function get_object(bucket, key, method)
    local object = store.get(bucket, key)
    if not object then return M.fail(404, "NoSuchKey") end
    local match, none_match = ngx.var.http_if_match, ngx.var.http_if_none_match
    if match and not strong(match, object.etag) then return M.fail(412, "PreconditionFailed") end
    if none_match and strong(none_match, object.etag) then
        return M.answer(304, nil, { ETag = '"' .. object.etag .. '"' })
    end
    local first, last = asked_range(object.size)
    if first == false then
        return M.fail(416, "InvalidRange")
    end
    if not first then ngx.req.clear_header("Range") end
    for _, name in ipairs({ "If-Match", "If-None-Match", "If-Modified-Since", "If-Range",
                            "If-Unmodified-Since" }) do
        ngx.req.clear_header(name)
    end
    ngx.ctx.object = object
    local rate = model:get("rate")
    if rate > 0 then ngx.var.limit_rate = rate end
    local fault = ngx.ctx.fault
    if fault and method == "GET" then strike_body(fault, object, first, last) end
    ngx.req.set_uri("/" .. object.file, false)
end

-- Queries that S3 answers and this does not.
local UNKNOWN = { "acl", "attributes", "cors", "encryption", "legal-hold", "lifecycle", "logging",
                  "notification", "object-lock", "policy", "replication", "restore", "retention",
                  "select", "tagging", "torrent", "versions", "website", "accelerate" }

local function bucket_request(method, name, args)
    local bucket = store.buckets[name]
    if method == "PUT" then
        if not bucket then store.create(name) end
        return M.answer(200)
    end
    if not bucket then return M.fail(404, "NoSuchBucket") end
    if method == "HEAD" then return M.answer(200, nil, { ["x-amz-bucket-region"] = "us-east-1" }) end
    if method == "POST" and args.delete then return M.answer(200, writes.delete_many(name)) end
    if method == "DELETE" then
        if #bucket.keys > 0 then return M.fail(409, "BucketNotEmpty") end
        store.drop(name)
        return M.answer(204)
    end
    if method ~= "GET" then return M.fail(501, "NotImplemented") end
    local empty = args.location and "LocationConstraint" or args.versioning
        and "VersioningConfiguration" or args.uploads and "ListMultipartUploadsResult"
    if empty then return M.answer(200, listing.HEAD .. "<" .. empty .. listing.XMLNS .. "/>") end
    return M.answer(200, listing.page(name, bucket, args))
end

local function object_request(method, bucket, key, args)
    if not store.buckets[bucket] then return M.fail(404, "NoSuchBucket") end
    if method == "GET" and args.uploadId then
        return M.fail(501, "NotImplemented")
    elseif method == "GET" or method == "HEAD" then
        return get_object(bucket, key, method)
    end
    local status, body, headers = writes.serve(method, bucket, key, args)
    if type(body) == "string" and MESSAGES[body] then return M.fail(status, body) end
    return M.answer(status, body, headers)
end

local function kind_of(method, key)
    if method == "GET" and key == "" then return "LIST" end
    return (method == "GET" or method == "HEAD" or method == "PUT" or method == "POST"
        or method == "DELETE") and method or "OTHER"
end

local function begin(method, key)
    local kind = kind_of(method, key)
    ngx.var.s3_kind = kind
    counts:incr(kind, 1, 0)
    local in_flight = counts:incr("in_flight", 1, 0)
    ngx.ctx.counted = true
    if in_flight > (counts:get("peak_in_flight") or 0) then
        counts:set("peak_in_flight", in_flight)
    end
    if (model:get("hang_until") or 0) > ngx.now() then ngx.sleep(FOREVER) end
    local ttfb = model:get("ttfb")
    if method == "PUT" or method == "POST" then ngx.req.read_body() end
    if ttfb > 0 then ngx.sleep(ttfb) end
    store.refresh()
    local fault = faults.draw(kind, key)
    ngx.ctx.fault = fault
    if fault then ngx.var.s3_fault = fault.kind end
    return fault
end

function M.serve()
    local method = ngx.req.get_method()
    local path = ngx.var.request_uri:match("^[^?]*")
    local bucket, key = path:match("^/([^/]*)/?(.*)$")
    key = store.unescape(key or "")
    local fault = begin(method, key)
    if fault and strike_early(fault) then return end
    local args = ngx.req.get_uri_args(0)
    for _, query in ipairs(UNKNOWN) do
        if args[query] then return M.fail(501, "NotImplemented") end
    end
    if bucket == "" then return M.answer(200, listing.buckets()) end
    if key == "" then return bucket_request(method, bucket, args) end
    return object_request(method, bucket, key, args)
end

function M.headers()
    ngx.header["x-amz-request-id"] = ngx.var.s3_id:sub(1, 16):upper()
    ngx.header["Server"] = "AmazonS3"
    local object = ngx.ctx.object
    if not object then return end
    ngx.header["ETag"] = '"' .. object.etag .. '"'
    ngx.header["Last-Modified"] = ngx.http_time(object.mtime)
    ngx.header["Content-Type"] = object.headers["content-type"] or "binary/octet-stream"
    local checksums = ngx.var.http_x_amz_checksum_mode and not ngx.var.http_range
    for name, value in pairs(object.headers) do
        if checksums or name:sub(1, 15) ~= "x-amz-checksum-" then ngx.header[name] = value end
    end
end

function M.count()
    if not ngx.ctx.counted then return end
    counts:incr("in_flight", -1)
    local kind = ngx.var.s3_kind
    -- For others, nginx counts a "100 Continue" as a part of the body.
    if kind == "GET" or kind == "LIST" then
        counts:incr("bytes_sent", tonumber(ngx.var.body_bytes_sent), 0)
    end
    counts:incr("bytes_received", tonumber(ngx.var.request_length), 0)
    counts:incr("status_" .. (ngx.status or 0), 1, 0)
end

return M
