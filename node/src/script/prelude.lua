-- What scripts find: the globals, made of Lua's own functions and those that the node gives in `given`.
-- Returns what the node keeps.
local given = ...
local native, failed = given.native, given.failed
local error, type, tostring, select = error, type, tostring, select
local setmetatable, rawset, next, pairs, ipairs = setmetatable, rawset, next, pairs, ipairs
local pcall, xpcall, resume, collectgarbage = pcall, xpcall, coroutine.resume, collectgarbage
local real_string, step = string, string.gmatch_step
string.gmatch_step = nil

-- A view of a table that can't be written to. Scripts are never given the table itself.
local views = {}
local READONLY = 'Attempt to modify a readonly table'
local function refuse() error(READONLY, 2) end
local function view(target)
  local proxy = setmetatable({}, {__index = target, __newindex = refuse, __metatable = false})
  views[proxy] = true
  return proxy
end

-- Whoever catches an error gets it in the form that Redis gives it; one that ends the script goes on.
local function caught(ok, ...)
  if ok then return true, ... end
  return false, native(...)
end
local function caught_reply(ok, ...)
  if ok then return true, ... end
  local raised = native(...)
  if type(raised) == 'table' and type(raised.err) == 'string' then return false, raised.err end
  return false, raised
end

local function advance(state, from, ...)
  state.from = from
  return ...
end
local function gmatch(text, pattern)
  step(text, pattern, 0)
  local state = {from = 0}
  return function()
    if not state.from then return nil end
    return advance(state, step(text, pattern, state.from))
  end
end
real_string.gmatch, real_string.gfind = gmatch, gmatch

local KEPT_SETTINGS = {stop = true, restart = true, setpause = true, setstepmul = true}
local globals = {
  _VERSION = _VERSION,
  assert = assert,
  -- How memory is looked after is not for scripts to say.
  collectgarbage = function(option, ...)
    if KEPT_SETTINGS[option] then return 0 end
    return collectgarbage(option, ...)
  end,
  error = error,
  gcinfo = gcinfo,
  getmetatable = getmetatable,
  ipairs = ipairs,
  load = given.load,
  loadstring = given.loadstring,
  next = next,
  pairs = pairs,
  pcall = function(...) return caught_reply(pcall(...)) end,
  rawequal = rawequal,
  rawget = rawget,
  rawset = function(target, key, value)
    if views[target] then error(READONLY, 0) end
    return rawset(target, key, value)
  end,
  select = select,
  setmetatable = given.setmetatable,
  tonumber = tonumber,
  tostring = tostring,
  type = type,
  unpack = given.unpack,
  xpcall = function(called, handler, ...)
    return caught(xpcall(called, function(raised) return handler(native(raised)) end, ...))
  end,
}
coroutine.resume = function(...) return caught(resume(...)) end
for _, name in ipairs({'coroutine', 'math', 'string', 'table'}) do globals[name] = view(_G[name]) end
getmetatable('').__metatable = view({__index = globals.string})
globals.os = view({clock = os.clock})
for _, name in ipairs({'bit', 'cjson', 'redis'}) do globals[name] = view(given[name]) end
-- The name that Valkey has for it.
globals.server = globals.redis
for _, name in ipairs({'cmsgpack', 'struct'}) do
  local function missing() error("the library '" .. name .. "' is not available here; cjson is", 2) end
  globals[name] = setmetatable({}, {__index = missing, __newindex = refuse, __metatable = false})
  views[globals[name]] = true
end
setmetatable(globals, {
  __index = function(_, name)
    error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
  end,
})
local environment = view(globals)
globals._G = environment

return {
  globals = globals,
  environment = environment,
  run = function(script) return xpcall(script, failed) end,
  -- What was put into a view behind its back is taken out again.
  tidy = function()
    for proxy in pairs(views) do
      for key in pairs(proxy) do rawset(proxy, key, nil) end
    end
  end,
}
