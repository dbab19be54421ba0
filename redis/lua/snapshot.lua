-- The beginning of every script that reads. A snapshot is the number and the id of
-- a commit; it stands if that commit is the newest one, or if the one behind it is
-- known to have followed it.
--
-- KEYS: values, index, meta, young, old, dead.  ARGV: "at" or "new", number, id.
-- "at" reads at that snapshot, and answers "gone" if it does not stand. "new" reads at
-- the newest commit, and tells whether the one given leads to it.
local values, index, meta, young, old = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]

local function stamp(n) return string.format('%015.0f', n) end
local function undo(field)
	return redis.call('HGET', young, field) or redis.call('HGET', old, field)
end

local m = redis.call('HMGET', meta, 'n', 'id', 'horizon')
local n, id, horizon = tonumber(m[1] or 0), m[2] or '', tonumber(m[3] or 0)
local at, was = tonumber(ARGV[2]), ARGV[3]
local follows = at == n and was == id or at < n and at >= horizon and undo(stamp(at + 1)) == was
if ARGV[1] == 'new' then
	at = n
elseif not follows then
	return {'gone'}
end
local answer = {follows and 'ok' or 'other', stamp(n), id}
local gone = false

-- payload is a field's value at the snapshot, or false. A value begins with the
-- number of its commit and a sign, "-" for a field that was deleted; what a commit
-- has replaced is kept under its number and the field.
local function payload(field, entry)
	while entry and entry ~= '' and tonumber(string.sub(entry, 1, 15)) > at do
		entry = undo(string.sub(entry, 1, 15) .. field)
		gone = gone or not entry
	end
	if not entry or entry == '' or string.sub(entry, 16, 16) == '-' then
		return false
	end
	return string.sub(entry, 17)
end
