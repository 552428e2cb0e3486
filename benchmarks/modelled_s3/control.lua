-- The control location, /-/: the latency model, the faults, the counts.

local faults = require("faults")
local store = require("store")

local M = {}
local model, counts = ngx.shared.model, ngx.shared.counts

local routes = {}

-- ttfb: seconds to the first byte of any answer. rate: bytes/s of one connection, 0 for no limit.
routes["PUT /-/model"] = function(args)
    model:set("ttfb", tonumber(args.ttfb))
    model:set("rate", tonumber(args.rate))
end

routes["PUT /-/faults"] = function(args)
    ngx.req.read_body()
    local body = ngx.req.get_body_data()
    local path = not body and ngx.req.get_body_file()
    if path then
        local file = assert(io.open(path, "rb"))
        body = file:read("*a")
        file:close()
    end
    faults.set(body or "", args.seed)
end

-- Accept requests and never answer those that come within the next `seconds`.
routes["PUT /-/hang"] = function(args)
    ngx.update_time()
    model:set("hang_until", ngx.now() + tonumber(args.seconds))
end

routes["GET /-/counts"] = function()
    for _, name in ipairs(counts:get_keys(0)) do
        ngx.say(name, "=", string.format("%.0f", counts:get(name)))
    end
end

-- Those under way stay counted as under way.
routes["DELETE /-/counts"] = function()
    for _, name in ipairs(counts:get_keys(0)) do
        if name ~= "in_flight" then counts:delete(name) end
    end
    counts:set("peak_in_flight", counts:get("in_flight") or 0)
end

-- Take in what was appended to the index; says what this worker holds.
routes["GET /-/ready"] = function()
    store.refresh()
    for name, bucket in pairs(store.buckets) do ngx.say(name, "=", #bucket.keys) end
end

function M.serve()
    local route = routes[ngx.req.get_method() .. " " .. ngx.var.uri]
    if not route then return ngx.exit(404) end
    route(ngx.req.get_uri_args())
end

return M
