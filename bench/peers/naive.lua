-- Idempotency as it is often written: SET NX in Redis, the call, SET with the answer. Nothing is durable,
-- no fingerprint is compared, a crash between the two leaves "pending" until it expires.
-- Debian packages no Redis client for nginx, so the few lines of the protocol that it takes are here.

local function command(socket, ...)
  local words = { ... }
  local out = { "*" .. #words .. "\r\n" }
  for _, word in ipairs(words) do
    out[#out + 1] = "$" .. #word .. "\r\n" .. word .. "\r\n"
  end
  local sent, problem = socket:send(out)
  if not sent then return nil, problem end
  local line
  line, problem = socket:receive("*l")
  if not line then return nil, problem end
  local kind = line:sub(1, 1)
  if kind == "+" then return line:sub(2) end
  if kind ~= "$" then return nil, line end
  local length = tonumber(line:sub(2))
  if length < 0 then return ngx.null end
  local data
  data, problem = socket:receive(length + 2)
  if not data then return nil, problem end
  return data:sub(1, length)
end

local function fail(status, problem)
  ngx.status = status
  ngx.say(problem)
  return ngx.exit(status)
end

local function answer(body)
  ngx.header["Content-Type"] = "application/json"
  ngx.header["Content-Length"] = #body
  ngx.print(body)
end

local key = ngx.var.http_idempotency_key
if not key then return fail(400, "no key") end

local socket = ngx.socket.tcp()
local connected, problem = socket:connect("127.0.0.1", redis_port, { pool_size = 256 })
if not connected then return fail(503, problem) end

local claimed
claimed, problem = command(socket, "SET", key, "pending", "NX", "EX", "86400")
if not claimed then return fail(503, problem) end

if claimed == ngx.null then
  local stored
  stored, problem = command(socket, "GET", key)
  if not stored then return fail(503, problem) end
  socket:setkeepalive(3600000, 256)
  if stored == "pending" then return fail(409, "in progress") end
  return answer(stored)
end

ngx.req.read_body()
local response = ngx.location.capture("/backend", { method = ngx.HTTP_POST, always_forward_body = true })
if response.status ~= 200 then return fail(502, "the backend answered " .. response.status) end
local kept
kept, problem = command(socket, "SET", key, response.body, "EX", "86400")
if not kept then return fail(503, problem) end
socket:setkeepalive(3600000, 256)
answer(response.body)
