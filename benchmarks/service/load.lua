-- What wrk sends to the service, one request after another, and the line of JSON that it prints.
--
--     wrk … -s load.lua URL -- photograph LIST    bodies are the files that LIST names, one a line
--     wrk … -s load.lua URL -- id HIGHEST         random ids from 1 on
--     wrk … -s load.lua URL -- PATH

local requests, sent = {}, 0

local function search(kind, body)
  table.insert(requests, wrk.format("POST", "/v1/search?k=10", {["Content-Type"] = kind}, body))
end

function init(arguments)
  if arguments[1] == "photograph" then
    for path in io.lines(arguments[2]) do
      local file = assert(io.open(path, "rb"))
      search("image/jpeg", file:read("*a"))
      file:close()
    end
  elseif arguments[1] == "id" then
    math.randomseed(1)
    for _ = 1, 10000 do
      search("application/json", '{"id": ' .. math.random(tonumber(arguments[2])) .. "}")
    end
  else
    table.insert(requests, wrk.format("GET", arguments[1]))
  end
end

function request()
  sent = sent + 1
  return requests[(sent - 1) % #requests + 1]
end

function done(summary, latency)
  local e = summary.errors
  print(string.format(
    '{"seconds": %.6f, "requests": %d, "p50": %.3f, "p90": %.3f, "p99": %.3f, "max": %.3f, '
      .. '"errors": {"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}',
    summary.duration / 1e6, summary.requests, latency:percentile(50) / 1e3,
    latency:percentile(90) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3,
    e.connect, e.read, e.write, e.status, e.timeout
  ))
end
