-- ListObjects (1 and 2), ListBuckets and the like, as XML.
--
-- A page holds at most max-keys names, keys and common prefixes counted alike, in key order. A
-- common prefix is told once: it is left out of the pages after it, and where start-after (or
-- marker) stands at it or inside it. A whole common prefix is stepped over by one search, so a
-- page of 1,000 directories costs the same however many keys they hold.

local store = require("store")

local M = {}
local HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
local XMLNS = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
local ENTITIES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }
M.HEAD, M.XMLNS = HEAD, XMLNS

function M.xml(text)
    if not text:find('[&<>"%c]') then return text end
    text = text:gsub('[&<>"]', ENTITIES)
    return (text:gsub("%c", function(c) return "&#x" .. string.format("%X", c:byte()) .. ";" end))
end

-- As S3 does for encoding-type=url: a space is "+", "/" stays.
local function url(text)
    if not text:find("[^%w%-%._*/]") then return text end
    text = text:gsub("[^%w%-%._*/ ]", function(c) return string.format("%%%02X", c:byte()) end)
    return (text:gsub(" ", "+"))
end

local iso_of = {}
local function iso(mtime)
    local text = iso_of[mtime]
    if not text then
        text = os.date("!%Y-%m-%dT%H:%M:%S.000Z", tonumber(mtime))
        iso_of[mtime] = text
    end
    return text
end

local function starts(text, prefix) return text:sub(1, #prefix) == prefix end

-- The names after `after` (nil: from the start): an array of {name, is_prefix}, and whether more
-- follow.
function M.names(bucket, prefix, delimiter, after, limit)
    local keys, out = bucket.keys, {}
    local i = store.lower_bound(keys, prefix, 1)
    if after and after >= prefix then
        i = store.lower_bound(keys, after, i)
        if keys[i] == after then i = i + 1 end
    end
    while true do
        local key = keys[i]
        if not key or not starts(key, prefix) then return out, false end
        local name, is_prefix = key, false
        if delimiter then
            local _, last = key:find(delimiter, #prefix + 1, true)
            if last then name, is_prefix = key:sub(1, last), true end
        end
        if not is_prefix or not after or name > after then
            if #out == limit then return out, true end
            out[#out + 1] = { name, is_prefix }
        end
        i = i + 1
        -- Keys are UTF-8: no byte of theirs is 0xFF.
        if is_prefix then i = store.lower_bound(keys, name .. "\255", i) end
    end
end

-- In pieces: LuaJIT keeps every string once, found by a hash of sixteen of its bytes. Of whole rows
-- those are alike, so that 100,000 of them were one chain, and a page took a second.
local function add_contents(out, name, line, owner)
    local size, mtime, etag = line:match("^(%d+)\t(%d+)\t([^\t]*)")
    local n = #out
    out[n + 1], out[n + 2], out[n + 3] = "<Contents><Key>", name, "</Key><LastModified>"
    out[n + 4], out[n + 5], out[n + 6] = iso(mtime), "</LastModified><ETag>&quot;", etag
    out[n + 7], out[n + 8], out[n + 9] = "&quot;</ETag><Size>", size, "</Size>"
    out[n + 10], out[n + 11] = owner, "<StorageClass>STANDARD</StorageClass></Contents>"
end

local OWNER = "<Owner><ID>modelled</ID><DisplayName>modelled</DisplayName></Owner>"

-- The XML of one page. args: the query's arguments.
function M.page(name, bucket, args)
    local v2 = args["list-type"] == "2"
    local encode = args["encoding-type"] == "url" and url or M.xml
    local delimiter = args.delimiter
    if delimiter == "" or delimiter == true then delimiter = nil end
    local prefix = type(args.prefix) == "string" and args.prefix or ""
    local limit = math.min(tonumber(args["max-keys"]) or 1000, 1000)
    local after = v2 and args["start-after"] or args.marker
    local token = v2 and args["continuation-token"]
    if type(token) == "string" and token ~= "" then after = ngx.decode_base64(token) end
    if after == "" or after == true then after = nil end

    local names, more = {}, false
    if limit > 0 then names, more = M.names(bucket, prefix, delimiter, after, limit) end
    local last = names[#names] and names[#names][1]
    local out = { HEAD, "<ListBucketResult", XMLNS, "><Name>", name, "</Name><Prefix>",
        encode(prefix), "</Prefix><MaxKeys>", limit, "</MaxKeys><IsTruncated>", tostring(more),
        "</IsTruncated>" }
    local function add(tag, value)
        if value then out[#out + 1] = "<" .. tag .. ">" .. value .. "</" .. tag .. ">" end
    end
    add("Delimiter", delimiter and encode(delimiter))
    add("EncodingType", encode == url and "url")
    if v2 then
        add("KeyCount", #names)
        add("StartAfter", type(args["start-after"]) == "string" and encode(args["start-after"]))
        add("ContinuationToken", type(token) == "string" and M.xml(token))
        add("NextContinuationToken", more and ngx.encode_base64(last))
    else
        out[#out + 1] = "<Marker>" .. encode(after or "") .. "</Marker>"
        add("NextMarker", more and delimiter and encode(last))
    end
    local owner = (not v2 or args["fetch-owner"] == "true") and OWNER or ""
    for _, pair in ipairs(names) do
        if not pair[2] then
            add_contents(out, encode(pair[1]), bucket.objects[pair[1]], owner)
        end
    end
    for _, pair in ipairs(names) do
        if pair[2] then
            local n = #out
            out[n + 1], out[n + 2] = "<CommonPrefixes><Prefix>", encode(pair[1])
            out[n + 3] = "</Prefix></CommonPrefixes>"
        end
    end
    out[#out + 1] = "</ListBucketResult>"
    return table.concat(out)
end

function M.buckets()
    local out = { HEAD, "<ListAllMyBucketsResult", XMLNS, ">", OWNER, "<Buckets>" }
    for name in pairs(store.buckets) do
        out[#out + 1] = "<Bucket><Name>" .. name
            .. "</Name><CreationDate>2024-01-01T00:00:00.000Z</CreationDate></Bucket>"
    end
    out[#out + 1] = "</Buckets></ListAllMyBucketsResult>"
    return table.concat(out)
end

return M
