-- A value, if nothing has invalidated it, and for each source: its name, epoch and the
-- position up to which the value holds.  KEYS: entry, meta.
local entry = redis.call('GET', KEYS[1])
if not entry then
	return {}
end
local answer = {string.sub(entry, string.find(entry, '\n', 1, true) + 1)}
for _, l in ipairs(labels(entry)) do
	local m = redis.call('HMGET', KEYS[2], l.source .. ':epoch', l.source .. ':generation', l.source .. ':seen')
	if m[1] ~= l.epoch or m[2] ~= l.generation then
		return {}
	end
	answer[#answer + 1] = l.source
	answer[#answer + 1] = l.epoch
	answer[#answer + 1] = whole(math.max(l.position, tonumber(m[3])))
end
return answer
