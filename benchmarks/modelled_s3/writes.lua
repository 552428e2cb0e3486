-- PUT, COPY, DELETE and multipart uploads. Each returns status, body (or an error code), headers.

local ffi = require("ffi")
local listing = require("listing")
local store = require("store")

ffi.cdef[[
typedef struct { unsigned char space[256]; } md5_state;
int MD5_Init(md5_state *c);
int MD5_Update(md5_state *c, const void *data, size_t len);
int MD5_Final(unsigned char *md, md5_state *c);
]]

local M = {}
local uploads = ngx.shared.uploads
local CHUNK = 1024 * 1024

local function hex(bytes)
    return (bytes:gsub(".", function(c) return string.format("%02x", c:byte()) end))
end

-- Calls write(bytes) for each piece of the source's bytes; returns how many, and their MD5.
local function digest(source, first, length, write)
    local state, raw, size = ffi.new("md5_state"), ffi.new("unsigned char[16]"), 0
    ffi.C.MD5_Init(state)
    if first > 0 then source:seek("set", first) end
    while size < length do
        local bytes = source:read(math.min(CHUNK, length - size))
        if not bytes then break end
        ffi.C.MD5_Update(state, bytes, #bytes)
        if write then write:write(bytes) end
        size = size + #bytes
    end
    ffi.C.MD5_Final(raw, state)
    return size, ffi.string(raw, 16)
end

local function spool(what) return store.directory .. "/body/" .. ngx.var.s3_id .. what end

-- aws-chunked: "<hex size>[;chunk-signature=...]\r\n<bytes>\r\n" ... "0\r\n<trailers>\r\n"
local function unchunk(path)
    local source, target = assert(io.open(path, "rb")), assert(io.open(spool(".decoded"), "wb"))
    while true do
        local size = tonumber((source:read("*l") or "0"):match("^%x+") or "0", 16)
        if size == 0 then break end
        target:write(source:read(size))
        source:read(2)
    end
    source:close()
    target:close()
    return spool(".decoded")
end

-- The request's body as a file: path, size, md5 (raw).
local function body()
    local path = ngx.req.get_body_file()
    local data = not path and (ngx.req.get_body_data() or "")
    if data then
        local file = assert(io.open(spool(".body"), "wb"))
        file:write(data)
        file:close()
        path = spool(".body")
    end
    local sha, encoding = ngx.var.http_x_amz_content_sha256, ngx.var.http_content_encoding
    if (sha or ""):find("^STREAMING") or (encoding or ""):find("aws-chunked", 1, true) then
        path = unchunk(path)
    end
    local file = assert(io.open(path, "rb"))
    local size, md5 = digest(file, 0, math.huge)
    file:close()
    return path, size, md5
end

-- Move a file to where its MD5 says, next to those that Python put there.
local function keep(path, name)
    local file = name:sub(1, 2) .. "/" .. name
    assert(os.rename(path, store.directory .. "/data/" .. file))
    return file
end

local function headers_to_keep()
    local kept = {}
    for name, value in pairs(ngx.req.get_headers(0)) do
        if name:find("^x%-amz%-meta%-") or name:find("^x%-amz%-checksum%-%l+%d*$")
            or name == "cache-control" or name == "content-type"
            or name == "content-encoding" and not value:find("aws-chunked", 1, true) then
            kept[name] = value
        end
    end
    kept["x-amz-checksum-algorithm"], kept["x-amz-checksum-type"] = nil, nil
    return kept
end

local function put_object(bucket, key)
    local there = store.get(bucket, key)
    local match, none_match = ngx.var.http_if_match, ngx.var.http_if_none_match
    if none_match and there then return 412, "PreconditionFailed" end
    if match and not there then return 404, "NoSuchKey" end
    if match and match:gsub('"', "") ~= there.etag then return 412, "PreconditionFailed" end
    local path, size, md5 = body()
    local sent = ngx.var.http_content_md5
    if sent and sent ~= ngx.encode_base64(md5) then return 400, "BadDigest" end
    local etag = hex(md5)
    store.put(bucket, key, { size = size, etag = etag, file = keep(path, etag),
                             headers = headers_to_keep() })
    return 200, nil, { ETag = '"' .. etag .. '"' }
end

local function copy_source()
    local path = store.unescape(ngx.var.http_x_amz_copy_source):gsub("%?versionId=.*$", "")
    local bucket, key = path:match("^/?([^/]+)/(.+)$")
    return store.buckets[bucket or ""] and store.get(bucket, key)
end

local function copied(tag, etag)
    return 200, listing.HEAD .. "<" .. tag .. listing.XMLNS .. "><LastModified>"
        .. os.date("!%Y-%m-%dT%H:%M:%S.000Z") .. "</LastModified><ETag>&quot;" .. etag
        .. "&quot;</ETag></" .. tag .. ">"
end

local function copy_object(bucket, key)
    local object = copy_source()
    if not object then return 404, "NoSuchKey" end
    local condition = ngx.var.http_x_amz_copy_source_if_match
    if condition and condition:gsub('"', "") ~= object.etag then return 412, "PreconditionFailed" end
    if (ngx.var.http_x_amz_metadata_directive or ""):upper() == "REPLACE" then
        object.headers = headers_to_keep()
    end
    store.put(bucket, key, object)
    return copied("CopyObjectResult", object.etag)
end

local function create_upload(bucket, key)
    local id = ngx.var.s3_id
    uploads:set(id, bucket .. "\t" .. store.escape(key) .. "\t" .. ngx.encode_args(headers_to_keep()))
    return 200, listing.HEAD .. "<InitiateMultipartUploadResult" .. listing.XMLNS .. "><Bucket>"
        .. bucket .. "</Bucket><Key>" .. listing.xml(key) .. "</Key><UploadId>" .. id
        .. "</UploadId></InitiateMultipartUploadResult>"
end

local function upload_part(id, number)
    local path, size, md5
    if ngx.var.http_x_amz_copy_source then
        local object = copy_source()
        if not object then return 404, "NoSuchKey" end
        local range = ngx.var.http_x_amz_copy_source_range or ""
        local first, last = range:match("^bytes=(%d+)%-(%d+)$")
        first, last = tonumber(first) or 0, tonumber(last) or object.size - 1
        local source = assert(io.open(store.directory .. "/data/" .. object.file, "rb"))
        local target = assert(io.open(spool(".whole"), "wb"))
        size, md5 = digest(source, first, last - first + 1, target)
        source:close()
        target:close()
        path = spool(".whole")
    else
        path, size, md5 = body()
    end
    local kept = store.directory .. "/parts/" .. id .. "-" .. number
    assert(os.rename(path, kept))
    uploads:set(id .. ":" .. number, size .. "\t" .. hex(md5))
    if ngx.var.http_x_amz_copy_source then return copied("CopyPartResult", hex(md5)) end
    return 200, nil, { ETag = '"' .. hex(md5) .. '"' }
end

local function forget(id)
    for number = 1, 10000 do
        if uploads:get(id .. ":" .. number) then
            os.remove(store.directory .. "/parts/" .. id .. "-" .. number)
            uploads:delete(id .. ":" .. number)
        end
    end
    uploads:delete(id)
end

-- The request's body as text.
local function text()
    local path = body()
    local file = assert(io.open(path, "rb"))
    local data = file:read("*a")
    file:close()
    os.remove(path)
    return data
end

local function complete_upload(bucket, key, id, described)
    if ngx.var.http_if_none_match and store.get(bucket, key) then return 412, "PreconditionFailed" end
    local target, size, md5s, count = assert(io.open(spool(".whole"), "wb")), 0, {}, 0
    for part in text():gmatch("<Part>(.-)</Part>") do
        local number = part:match("<PartNumber>%s*(%d+)%s*</PartNumber>")
        local etag = part:match("<ETag>(.-)</ETag>"):gsub("&quot;", ""):gsub("&#34;", "")
        local part_size, part_md5 = (uploads:get(id .. ":" .. number) or ""):match("(%d+)\t(%x+)")
        if not part_md5 or part_md5 ~= etag:gsub('"', "") then
            target:close()
            return 400, "InvalidPart"
        end
        local source = assert(io.open(store.directory .. "/parts/" .. id .. "-" .. number, "rb"))
        local read, md5 = digest(source, 0, math.huge, target)
        source:close()
        assert(read == tonumber(part_size))
        size, count = size + read, count + 1
        md5s[count] = md5
    end
    target:close()
    local etag = hex(ngx.md5_bin(table.concat(md5s))) .. "-" .. count
    local headers = described:match("^[^\t]*\t[^\t]*\t(.*)$")
    store.put(bucket, key, { size = size, etag = etag, file = keep(spool(".whole"), etag),
                             headers = ngx.decode_args(headers, 0) })
    forget(id)
    return 200, listing.HEAD .. "<CompleteMultipartUploadResult" .. listing.XMLNS .. "><Bucket>"
        .. bucket .. "</Bucket><Key>" .. listing.xml(key) .. "</Key><ETag>&quot;" .. etag
        .. "&quot;</ETag></CompleteMultipartUploadResult>"
end

local UNXML = { amp = "&", lt = "<", gt = ">", quot = '"', apos = "'" }

function M.delete_many(bucket)
    local out = { listing.HEAD, "<DeleteResult", listing.XMLNS, ">" }
    local request = text()
    local quiet = request:find("<Quiet>true</Quiet>", 1, true)
    for key in request:gmatch("<Key>(.-)</Key>") do
        key = key:gsub("&#x(%x+);", function(code) return string.char(tonumber(code, 16)) end)
        key = key:gsub("&#(%d+);", function(code) return string.char(tonumber(code)) end)
        key = key:gsub("&(%l+);", UNXML)
        store.delete(bucket, key)
        if not quiet then out[#out + 1] = "<Deleted><Key>" .. listing.xml(key) .. "</Key></Deleted>" end
    end
    out[#out + 1] = "</DeleteResult>"
    return table.concat(out)
end

function M.serve(method, bucket, key, args)
    local id = args.uploadId
    local described = id and uploads:get(id)
    if id and not described then return 404, "NoSuchUpload" end
    if method == "POST" and args.uploads then return create_upload(bucket, key) end
    if method == "POST" and id then return complete_upload(bucket, key, id, described) end
    if method == "PUT" and id then return upload_part(id, args.partNumber) end
    if method == "PUT" and ngx.var.http_x_amz_copy_source then return copy_object(bucket, key) end
    if method == "PUT" then return put_object(bucket, key) end
    if method == "DELETE" and id then
        forget(id)
        return 204
    end
    if method == "DELETE" then
        store.delete(bucket, key)
        return 204
    end
    return 501, "NotImplemented"
end

return M
