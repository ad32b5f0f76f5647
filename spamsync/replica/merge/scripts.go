package merge

// The decisions that depend on what home has at that moment are made on home, in
// scripts: they are atomic with the rest of the batch, and nobody's write comes
// between reading and writing. They use pcall throughout: a key that holds
// something else on home is counted, not an error in the middle of a batch.
//
// Every script returns {kept, failed, ...}: how many values stayed as home had
// them, and how many keys could not be written.

// scriptHead is common to all.
const scriptHead = `
local kept, failed = 0, 0
local function call(...)
  local r = redis.pcall(...)
  if type(r) == 'table' and r.err then failed = failed + 1 return false end
  return r
end
local function live(key, ms, old)
  if not ms or ms <= 0 then return end
  if old then call('PEXPIREAT', key, ms, 'GT') else call('PEXPIREAT', key, ms) end
end
`

// scriptPersistent remembers in the mark (KEYS[1]) which keys live for ever on
// home, before the batch creates others; scriptLives, at its end, gives the keys the
// lives of ARGV where they end later than home's. A new key has none yet, and GT
// alone would pass over it.
const (
	scriptPersistent = scriptHead + `
for i = 2, #KEYS do
  if redis.call('PTTL', KEYS[i]) == -1 then call('HSET', KEYS[1], 'p:' .. KEYS[i], '1') end
end
return {kept, failed}`
	scriptLives = scriptHead + `
for i = 2, #KEYS do
  if call('HDEL', KEYS[1], 'p:' .. KEYS[i]) == 0 then
    call('PEXPIREAT', KEYS[i], ARGV[i-1], 'NX')
    call('PEXPIREAT', KEYS[i], ARGV[i-1], 'GT')
  end
end
return {kept, failed}`
)

// scriptGrey: KEYS are records, ARGV pairs of value and end of life. The earliest
// value and the longest life stay.
const scriptGrey = scriptHead + `
for i = 1, #KEYS do
  local v, ms = ARGV[2*i-1], tonumber(ARGV[2*i])
  local old = call('GET', KEYS[i])
  if old and (not tonumber(v) or (tonumber(old) and tonumber(old) <= tonumber(v))) then
    kept = kept + 1
  elseif old then
    call('SET', KEYS[i], v, 'KEEPTTL')
  else
    call('SET', KEYS[i], v)
  end
  live(KEYS[i], ms, old)
end
return {kept, failed}`

// scriptShingle: KEYS are shingles, ARGV pairs of digest and end of life. Where two
// digests meet, the one that lives longer was written later.
const scriptShingle = scriptHead + `
for i = 1, #KEYS do
  local v, ms = ARGV[2*i-1], tonumber(ARGV[2*i])
  local old = call('GET', KEYS[i])
  if not old then
    call('SET', KEYS[i], v)
  elseif old ~= v then
    local life = redis.pcall('PEXPIRETIME', KEYS[i])
    if type(life) == 'number' and life >= 0 and (ms == 0 or ms > life or (ms == life and v > old)) then
      call('SET', KEYS[i], v, 'KEEPTTL')
    else
      kept = kept + 1
    end
  else
    kept = kept + 1
  end
  live(KEYS[i], ms, old)
end
return {kept, failed}`

// scriptFuzzy: KEYS are fuzzy hashes, ARGV triples of field, value and command
// (F, C; the value V goes by delta). F stays where it is set, C is the earliest.
const scriptFuzzy = scriptHead + `
for i = 1, #KEYS do
  local f, v = ARGV[2*i-1], ARGV[2*i]
  local old = call('HGET', KEYS[i], f)
  if not old or (f == 'C' and tonumber(v) and tonumber(old) and tonumber(v) < tonumber(old)) then
    call('HSET', KEYS[i], f, v)
  elseif old ~= v then
    kept = kept + 1
  end
end
return {kept, failed}`

// scriptRate: one bucket; ARGV are pairs of field and value. The newest time takes
// its multipliers along; the bucket is as full as the fuller one.
const scriptRate = scriptHead + `
local new = {}
for i = 1, #ARGV, 2 do new[ARGV[i]] = ARGV[i+1] end
local l = tonumber(call('HGET', KEYS[1], 'l') or '')
local newer = not l or not new.l or tonumber(new.l) >= l
for f, v in pairs(new) do
  if f == 'b' then
    local b = tonumber(call('HGET', KEYS[1], 'b') or '')
    if not b or tonumber(v) > b then call('HSET', KEYS[1], 'b', v) else kept = kept + 1 end
  elseif newer then
    call('HSET', KEYS[1], f, v)
  else
    kept = kept + 1
  end
end
return {kept, failed}`

// scriptReputation: one group; ARGV: by how much the follower counted in all and in
// this batch, its count now (-1: not known), the time, then pairs of average and
// value. Where home counted nothing since the fork the follower's averages are right;
// otherwise each weighs what it counted since.
const scriptReputation = scriptHead + `
local all, now, count, time = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local n = tonumber(call('HGET', KEYS[1], 'n') or '0') or 0
local theirs = n
if count >= 0 then theirs = n - math.max(0, count - all) - (all - now) end
if theirs < 0 then theirs = 0 end
for i = 5, #ARGV, 2 do
  local old = tonumber(call('HGET', KEYS[1], ARGV[i]) or '')
  local new = tonumber(ARGV[i+1])
  if new and old and theirs > 0 then
    new = (old * theirs + new * all) / (theirs + all)
    call('HSET', KEYS[1], ARGV[i], string.format('%.14g', new))
  elseif new then
    call('HSET', KEYS[1], ARGV[i], ARGV[i+1])
  end
end
local l = tonumber(call('HGET', KEYS[1], 'l') or '')
if time ~= '' and (not l or tonumber(time) > l) then call('HSET', KEYS[1], 'l', time) end
if now ~= 0 then call('HINCRBY', KEYS[1], 'n', now) end
return {kept, failed}`

// scriptAbsent: KEYS are hashes, ARGV pairs of field and value: set where home has
// none.
const scriptAbsent = scriptHead + `
for i = 1, #KEYS do
  local r = call('HSETNX', KEYS[i], ARGV[2*i-1], ARGV[2*i])
  if r == 0 and call('HGET', KEYS[i], ARGV[2*i-1]) ~= ARGV[2*i] then kept = kept + 1 end
end
return {kept, failed}`

// scriptLearn replays one learn. KEYS: the mark, the totals, the digest (builtin's
// string, or rspamd's hash), then the tokens. ARGV: dry run, own, digest, before and
// after of this learn, base and final of the whole stream, the end of life of its
// tokens and of the last learn, whether more learns of the message follow, then the
// deltas of each token, spam and ham.
//
// The message has three classes: at the fork, at home, and at the follower. Where
// both came to the same, it counts once. Builtin's digests know when they were
// taught: the newer class is right. Rspamd's do not: where only one site changed the
// class, that one is right, and where both did, the newer one, by the life of the
// rarest token. Taught beats forgotten. A decision holds for all learns of the
// message and is kept with the mark meanwhile, with the class the last one led to:
// a learn that starts from another follows a crash in which the follower forgot it.
//
// It returns the decision as third value: a applied, d double, h home won, f
// follower won, o the message is as it was at the fork.
const scriptLearn = scriptHead + `
local dry, own, digest = ARGV[1] == '1', ARGV[2] == '1', ARGV[3]
local before, after, base, final = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local life, last, more = tonumber(ARGV[8]), tonumber(ARGV[9]), ARGV[10] == '1'
local first = 10
local S, H, LS, LH = 'S', 'H', 'learns_spam', 'learns_ham'
if own then S, H, LS, LH = 's', 'h', 's', 'h' end

local place = KEYS[3]
local function class()
  local v
  if own then
    v = call('GET', place)
  else
    for i = 0, 9 do
      local name = KEYS[3] .. string.rep('X', i)
      v = call('HGET', name, digest)
      if v then place = name break end
    end
  end
  if v == 'spam' or v == '1' then return 's', v end
  if v == 'ham' or v == '-1' or v == '0' then return 'h', v end
  return 'n', v
end

local function add(key, field, n)
  if n ~= 0 then call('HINCRBY', key, field, n) end
end

local function move(from, to)
  local s, h = 0, 0
  if from == 's' then s = s - 1 elseif from == 'h' then h = h - 1 end
  if to == 's' then s = s + 1 elseif to == 'h' then h = h + 1 end
  for i = 4, #KEYS do
    add(KEYS[i], S, s)
    add(KEYS[i], H, h)
  end
  add(KEYS[2], LS, s)
  add(KEYS[2], LH, h)
end

local function taughtAt()
  if own then
    local t = redis.pcall('PEXPIRETIME', place)
    return type(t) == 'number' and t or -1
  end
  local oldest = -1
  for i = 4, #KEYS do
    local t = redis.pcall('PEXPIRETIME', KEYS[i])
    if type(t) == 'number' and t > 0 and (oldest < 0 or t < oldest) then oldest = t end
  end
  return oldest
end

local home = class()
local field = 'd:' .. digest
local stored = redis.pcall('HGET', KEYS[1], field)
local decision
local fix = false
local cur = before
if type(stored) == 'string' then
  decision, cur = string.sub(stored, 1, 1), string.sub(stored, 2, 2)
elseif own and home ~= 'n' and final ~= 'n' then
  local at = taughtAt()
  if home == final then
    decision = 'd'
  elseif last > at or (last == at and final == 's') then
    fix = home ~= base
    decision = fix and 'f' or 'a'
  else
    decision = 'h'
  end
elseif final == base then
  decision = 'o'
elseif home == base then
  decision = 'a'
elseif home == final then
  decision = 'd'
elseif home == 'n' then
  decision, fix = 'f', true
elseif final == 'n' then
  decision = 'h'
else
  local at = taughtAt()
  if last > 0 and at > 0 and (last > at or (last == at and final == 's')) then
    decision, fix = 'f', true
  else
    decision = 'h'
  end
end
if dry then return {0, 0, decision} end

if more then
  call('HSET', KEYS[1], field, decision .. after)
elseif stored then
  call('HDEL', KEYS[1], field)
end
local old = {}
for i = 4, #KEYS do old[i] = redis.call('EXISTS', KEYS[i]) == 1 end
if decision == 'a' or decision == 'f' then
  if fix then move(home, base) end
  if cur ~= before then move(cur, before) end
  for i = 4, #KEYS do
    local n = first + 1 + 2 * (i - 4)
    add(KEYS[i], S, tonumber(ARGV[n]))
    add(KEYS[i], H, tonumber(ARGV[n+1]))
  end
  local s, h = 0, 0
  if before == 's' then s = s - 1 elseif before == 'h' then h = h - 1 end
  if after == 's' then s = s + 1 elseif after == 'h' then h = h + 1 end
  add(KEYS[2], LS, s)
  add(KEYS[2], LH, h)
  if own then
    if after == 'n' then
      call('DEL', place)
    else
      call('SET', place, after == 's' and 'spam' or 'ham', 'KEEPTTL')
      if home == 'n' and last > 0 then call('PEXPIREAT', place, last) end
    end
  elseif after == 'n' then
    call('HDEL', place, digest)
  else
    local _, v = class()
    local words = {s = '1', h = '-1'}
    if v == 'spam' or v == 'ham' then words = {s = 'spam', h = 'ham'} end
    if v == '0' then words.h = '0' end
    call('HSET', place, digest, words[after])
  end
end
for i = 4, #KEYS do live(KEYS[i], life, old[i]) end
if own and home ~= 'n' and (class()) == final then live(place, last, true) end
return {kept, failed, decision}`
