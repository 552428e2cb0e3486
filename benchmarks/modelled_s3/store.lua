-- The buckets: a sorted array of keys each, and where each object's bytes lie.
--
-- The truth is a journal, `index`, to which whoever changes something appends one line with one
-- write(2): this worker, another worker, or Python. Every request first reads what was appended
-- since the last one, so that all workers agree without a lock. Files below `data/` never change:
-- an object that is replaced gets another file, and a GET that is under way keeps the old one.
--
--   B <bucket>                                             a bucket is created
--   X <bucket>                                             a bucket is deleted
--   P <bucket> <key> <size> <mtime> <etag> <file> <headers>  an object is put
--   D <bucket> <key>                                       an object is deleted
--
-- Fields are separated by tabs; keys are percent-encoded, headers an encoded query string.

local ffi = require("ffi")
local bit = require("bit")

ffi.cdef[[
int open(const char *path, int flags, unsigned int mode);
long write(int fd, const void *buf, size_t count);
]]
local O_WRONLY_APPEND = bit.bor(1, 1024)
local BATCH = 4 * 1024 * 1024

local M = { buckets = {}, directory = nil }
local journal, journal_fd
local consumed = 0

function M.open(directory)
    M.directory = directory
    journal = assert(io.open(directory .. "/index", "rb"))
    journal_fd = ffi.C.open(directory .. "/index", O_WRONLY_APPEND, 0)
end

function M.unescape(text)
    if not text:find("%", 1, true) then return text end
    return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

function M.escape(text)
    return (text:gsub("[^%w%-%._~/]", function(c) return string.format("%%%02X", c:byte()) end))
end

-- The first index in [low, #keys + 1] whose key is not below `key`: gallop, then bisect.
function M.lower_bound(keys, key, low)
    local n, step = #keys, 1
    local high = low
    while high <= n and keys[high] < key do
        low = high + 1
        high = high + step
        step = step * 2
    end
    if high > n then high = n + 1 end
    while low < high do
        local middle = math.floor((low + high) / 2)
        if keys[middle] < key then low = middle + 1 else high = middle end
    end
    return low
end

local function merged(keys, added)
    local out, i, j = table.new and table.new(#keys + #added, 0) or {}, 1, 1
    while i <= #keys and j <= #added do
        if keys[i] < added[j] then
            out[#out + 1] = keys[i]
            i = i + 1
        else
            out[#out + 1] = added[j]
            j = j + 1
        end
    end
    for k = i, #keys do out[#out + 1] = keys[k] end
    for k = j, #added do out[#out + 1] = added[k] end
    return out
end

local function settle(bucket, touched)
    local added, removed = {}, 0
    for key, was_there in pairs(touched) do
        local is_there = bucket.objects[key] ~= nil
        if is_there and not was_there then added[#added + 1] = key end
        if was_there and not is_there then removed = removed + 1 end
    end
    if removed > 0 then
        local kept = {}
        for _, key in ipairs(bucket.keys) do
            if bucket.objects[key] then kept[#kept + 1] = key end
        end
        bucket.keys = kept
    end
    table.sort(added)
    local keys = bucket.keys
    if #added > 0 and (#keys == 0 or keys[#keys] < added[1]) then
        for _, key in ipairs(added) do keys[#keys + 1] = key end
    elseif #added == 1 then
        table.insert(keys, M.lower_bound(keys, added[1], 1), added[1])
    elseif #added > 1 then
        bucket.keys = merged(keys, added)
    end
end

local function apply(text)
    local touched = {}
    for operation, name, rest in text:gmatch("(%u)\t([^\t\n]*)\t?([^\n]*)\n") do
        local bucket = M.buckets[name]
        if operation == "B" then
            M.buckets[name] = bucket or { keys = {}, objects = {} }
        elseif operation == "X" then
            M.buckets[name], touched[name] = nil, nil
        elseif bucket then
            local key, object = rest, nil
            if operation == "P" then key, object = rest:match("^([^\t]*)\t(.*)$") end
            key = M.unescape(key)
            local seen = touched[name]
            if not seen then
                seen = {}
                touched[name] = seen
            end
            if seen[key] == nil then seen[key] = bucket.objects[key] ~= nil end
            bucket.objects[key] = object
        end
    end
    for name, keys in pairs(touched) do settle(M.buckets[name], keys) end
end

-- Read what was appended to the journal since the last request.
function M.refresh()
    local size = journal:seek("end")
    while consumed < size do
        journal:seek("set", consumed)
        local text = journal:read(math.min(BATCH, size - consumed))
        local last = text:match(".*()\n")
        if not last then return end  -- a line that is being written
        apply(text:sub(1, last))
        consumed = consumed + last
    end
end

local function append(line)
    if ffi.C.write(journal_fd, line, #line) ~= #line then error("cannot write the index") end
    M.refresh()
end

function M.create(bucket) append("B\t" .. bucket .. "\n") end
function M.drop(bucket) append("X\t" .. bucket .. "\n") end
function M.delete(bucket, key) append("D\t" .. bucket .. "\t" .. M.escape(key) .. "\n") end

-- object: size, etag (unquoted), file, headers (a table)
function M.put(bucket, key, object)
    append(table.concat({ "P", bucket, M.escape(key), object.size, ngx.time(), object.etag,
        object.file, ngx.encode_args(object.headers) }, "\t") .. "\n")
end

-- The object as a table, or nil.
function M.get(bucket, key)
    local line = M.buckets[bucket].objects[key]
    if not line then return nil end
    local size, mtime, etag, file, headers = line:match("^(%d+)\t(%d+)\t([^\t]*)\t([^\t]*)\t(.*)$")
    return { size = tonumber(size), mtime = tonumber(mtime), etag = etag, file = file,
             headers = headers == "" and {} or ngx.decode_args(headers, 0) }
end

return M
