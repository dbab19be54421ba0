-- Drops what the events of a source have changed, and remembers that they have, for
-- fills that began before. The oldest of what is remembered are forgotten when it is
-- too much; then the floor rises to them.
-- KEYS: meta, the source's last invalidations, and an entry for each change.
-- ARGV: source, epoch, the position behind which the events begin, the one at which
-- they end, how many keys to remember, a new generation, then for each change its key
-- and position.
local meta, lasts, source, epoch = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local from, to, limit = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local m = redis.call('HMGET', meta, source .. ':epoch', source .. ':seen', source .. ':floor', source .. ':count', source .. ':generation')
local count = redis.call('ZCARD', lasts)
local function know(generation, seen, floor, count)
	redis.call('HSET', meta, source .. ':epoch', epoch, source .. ':generation', generation, source .. ':seen', whole(seen),
		source .. ':floor', whole(floor), source .. ':count', whole(count))
end

local seen, floor = tonumber(m[2] or 0), tonumber(m[3] or 0)
local missed = from > seen and from < to
if m[1] ~= epoch or missed or count ~= tonumber(m[4]) then
	redis.call('DEL', lasts)
	know(ARGV[6], to, to, 0)
	return 'began'
end
if to <= seen or from == to then
	return 'known'
end
for i = 3, #KEYS do
	local a = 7 + 2 * (i - 3)
	local key, position = ARGV[a], tonumber(ARGV[a + 1])
	if position > seen then
		local newer = false
		for _, l in ipairs(labels(redis.call('GET', KEYS[i]) or '')) do
			newer = newer or l.source == source and l.generation == m[5] and l.position >= position
		end
		if not newer then
			redis.call('DEL', KEYS[i])
		end
		redis.call('ZADD', lasts, whole(position), key)
	end
end
count = redis.call('ZCARD', lasts)
while count > limit do
	local oldest = redis.call('ZPOPMIN', lasts)
	floor, count = math.max(floor, tonumber(oldest[2])), count - 1
end
know(m[5], to, floor, count)
return 'told'
