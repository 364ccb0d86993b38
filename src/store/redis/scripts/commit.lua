-- Commits groups of changes: of each group all changes, or none.
--
-- KEYS  ids, open, expiry, subjects, times, marker, then the record of each change of each group
-- ARGV  store id; 1 where replicas are waited for; then for each group: the number of its changes,
--       negative for a group that is sent again; and for each change: record id, expected version
--       (empty: absent), new bytes (empty: removal)
-- Returns 0 when all groups were made; else for each group 0, or the index of its first change that
-- found another record than expected, and that record.
--
-- No two groups name the same record. Records and indexes are read and written by few commands with
-- many arguments, because calling commands takes most of a script's time. The offsets are those of
-- the record's layout in codec/mod.rs, counted from 1.

-- Arguments of one command: Lua's stack is limited.
local MAX_ARGUMENTS = 1000

local found = {}
for first = 6, #KEYS, MAX_ARGUMENTS do
  local last = math.min(first + MAX_ARGUMENTS - 1, #KEYS)
  local part = redis.call('MGET', unpack(KEYS, first, last))
  for at = 1, #part do
    found[first + at - 1] = part[at]
  end
end
if found[6] ~= ARGV[1] then
  return redis.error_reply('EMPTIED the marker is not this store\'s')
end

local byte, sub = string.byte, string.sub

-- Arguments of the commands to call, and their numbers: MSET, DEL, and for each index ZADD and
-- ZREM.
local set, sets, del, dels = {}, 0, {}, 0
local add, adds = {{}, {}, {}, {}, {}}, {0, 0, 0, 0, 0}
local remove, removes = {{}, {}, {}, {}, {}}, {0, 0, 0, 0, 0}

-- Replaces the member `was` of an index by `is`; nil stands for no member.
local function replace(index, was, is)
  if was == is then
    return
  end
  if was then
    local count = removes[index] + 1
    remove[index][count] = was
    removes[index] = count
  end
  if is then
    local list, count = add[index], adds[index]
    list[count + 1] = '0'
    list[count + 2] = is
    adds[index] = count + 2
  end
end

local function replace_all(was_id, was_open, was_expiry, was_subject, was_time,
                           is_id, is_open, is_expiry, is_subject, is_time)
  replace(1, was_id, is_id)
  replace(2, was_open, is_open)
  replace(3, was_expiry, is_expiry)
  replace(4, was_subject, is_subject)
  replace(5, was_time, is_time)
end

-- The members of a record in the five indexes: `ids` has its id; `times` the time of its first
-- claim, with the high byte first so that bytes sort like numbers, and its id; `open` the same,
-- followed by the owner while it is in flight; `expiry` its expiry and its id; `subjects` its
-- subject and the member of `times`.
local function entries(id, bytes)
  local state, flags = byte(bytes, 2, 3)
  local time = string.reverse(sub(bytes, 28, 35)) .. id
  local open, expiry, subject
  if state == 1 or state == 7 or state == 9 then
    open = time .. sub(bytes, 12, 27)
  elseif state == 2 or state == 8 then
    open = time
  end
  local next = 36
  if flags % 2 == 1 then
    expiry = string.reverse(sub(bytes, 36, 43)) .. id
    next = 44
  end
  if flags % 4 >= 2 then
    subject = sub(bytes, next, next + 15) .. time
  end
  return id, open, expiry, subject, time
end

-- Writes the entries of a record again, and removes those that earlier states of the same attempt
-- had in `open`. A removed record may leave entries in all indexes but `ids`; they name no record,
-- and readers skip them.
local function restore(id, put)
  local was_id, is_id, is_open, is_expiry, is_subject, is_time
  if put == '' then
    was_id = id
  else
    is_id, is_open, is_expiry, is_subject, is_time = entries(id, put)
    for _, entry in ipairs({is_time, is_time .. sub(put, 12, 27)}) do
      if entry ~= is_open then
        replace(2, entry, nil)
      end
    end
  end
  replace_all(was_id, nil, nil, nil, nil, is_id, is_open, is_expiry, is_subject, is_time)
end

-- Adds one change to the commands. `made` is true when the record already is what the change makes
-- it, because an earlier attempt put it. That attempt may have ended before it wrote the indexes: a
-- script ends with the first command that the server refuses.
local function change(key, id, old, put, made)
  if made then
    return restore(id, put)
  end
  local was_id, was_open, was_expiry, was_subject, was_time
  local is_id, is_open, is_expiry, is_subject, is_time
  if old then
    was_id, was_open, was_expiry, was_subject, was_time = entries(id, old)
  end
  if put == '' then
    dels = dels + 1
    del[dels] = key
  else
    set[sets + 1] = key
    set[sets + 2] = put
    sets = sets + 2
    is_id, is_open, is_expiry, is_subject, is_time = entries(id, put)
  end
  replace_all(was_id, was_open, was_expiry, was_subject, was_time,
              is_id, is_open, is_expiry, is_subject, is_time)
end

-- The index of the first change whose record is not the expected one, and that record. The keys of
-- the group begin after KEYS[key], its changes after ARGV[arg].
local function first_mismatch(key, arg, changes, resent)
  for at = 1, changes do
    local old, expect = found[key + at], ARGV[arg + 3 * at - 1]
    local fits
    if old then
      fits = expect ~= '' and sub(old, 4, 11) == expect
    else
      fits = expect == ''
    end
    if not fits and resent then
      fits = (old or '') == ARGV[arg + 3 * at]
    end
    if not fits then
      return {at - 1, old}
    end
  end
end

local results, count, any_lost, any_resent = {}, 0, false, false
local key, arg, last = 6, 3, #ARGV
while arg <= last do
  local changes = tonumber(ARGV[arg])
  local resent = changes < 0
  changes = math.abs(changes)
  local mismatch = first_mismatch(key, arg, changes, resent)
  if mismatch then
    any_lost = true
  else
    any_resent = any_resent or resent
    for at = 1, changes do
      local args = arg + 3 * at
      local old, put = found[key + at], ARGV[args]
      change(KEYS[key + at], ARGV[args - 2], old, put, resent and (old or '') == put)
    end
  end
  count = count + 1
  results[count] = mismatch or 0
  key, arg = key + changes, arg + 1 + 3 * changes
end

local function call_in_parts(command, list, key)
  for first = 1, #list, MAX_ARGUMENTS do
    local part_end = math.min(first + MAX_ARGUMENTS - 1, #list)
    if key then
      redis.call(command, key, unpack(list, first, part_end))
    else
      redis.call(command, unpack(list, first, part_end))
    end
  end
end

-- A command that the server refuses ends the script, and the commands before it stay in effect. So
-- entries are added before their records are written, and removed after: an entry without a record
-- misleads nobody, because readers of an entry read its record.
for index = 1, 5 do
  call_in_parts('ZADD', add[index], KEYS[index])
end
call_in_parts('MSET', set)
call_in_parts('DEL', del)
for index = 1, 5 do
  call_in_parts('ZREM', remove[index], KEYS[index])
end

-- A record that was there already, written by an earlier attempt or by another process, may be on
-- this server alone. Since Redis 7.2 `WAIT` counts replicas only up to the last write of its own
-- connection, so this connection has to write.
if ARGV[2] == '1' and (any_resent or any_lost) then
  redis.call('SET', KEYS[6], ARGV[1])
end
return any_lost and results or 0
