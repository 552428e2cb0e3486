-- Which request is struck by which fault.
--
-- A fault is set as a query string (see faults.py for the fields). Whether a request is struck
-- depends on the seed and on its place among the requests of its kind alone, so that a run with
-- requests in the same order meets the same faults. The shares of several faults add up.

local M = {}
local model = ngx.shared.model
local counts = ngx.shared.counts
local cached, cached_version = {}, nil

local function active()
    local version = model:get("faults_version")
    if version ~= cached_version then
        cached, cached_version = {}, version
        for line in (model:get("faults") or ""):gmatch("[^\n]+") do
            local fault = ngx.decode_args(line, 0)
            fault.share = tonumber(fault.share)
            fault.after = tonumber(fault.after)
            fault.seconds = tonumber(fault.seconds)
            fault.rate = tonumber(fault.rate)
            fault.skip = tonumber(fault.skip)
            fault.count = tonumber(fault.count)
            fault.id = "fault" .. #cached
            cached[#cached + 1] = fault
        end
    end
    return cached
end

-- Lines of query strings, in the place of those before.
function M.set(lines, seed)
    for i = 0, #active() - 1 do
        model:delete("fault" .. i .. ":seen")
        model:delete("fault" .. i .. ":struck")
    end
    model:set("faults", lines)
    model:set("seed", seed)
    model:delete("draws")
    model:incr("faults_version", 1, 0)
end

local function applies(fault, kind, key)
    if fault.op ~= kind and fault.op ~= "ANY" then return false end
    return not fault.key or (key and key:find(fault.key, 1, true) ~= nil)
end

-- The fault that strikes this request, or nil.
function M.draw(kind, key)
    local faults = active()
    if #faults == 0 then return nil end
    local chance
    for _, fault in ipairs(faults) do
        if applies(fault, kind, key) then
            if not chance then
                local number = model:incr("draws", 1, 0)
                chance = ngx.crc32_short(model:get("seed") .. ":" .. number) / 4294967296
            end
            local seen = model:incr(fault.id .. ":seen", 1, 0)
            if chance < fault.share and seen > fault.skip then
                local struck = model:incr(fault.id .. ":struck", 1, 0)
                if not fault.count or struck <= fault.count then
                    counts:incr("fault:" .. fault.kind, 1, 0)
                    return fault
                end
            end
            chance = chance - fault.share
            if chance < 0 then return nil end
        end
    end
    return nil
end

return M
