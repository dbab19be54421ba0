-- An entry of a cache begins with a line of labels, "source:epoch:generation:position"
-- with commas between, one for each source that it is made of. The generation of a
-- source changes when everything made of it is dropped; its state is in meta, under
-- the source's name.
local function labels(entry)
	local all, line = {}, string.sub(entry, 1, (string.find(entry, '\n', 1, true) or 1) - 1)
	for source, epoch, generation, position in string.gmatch(line, '([^:,]+):([^:,]*):([^:,]*):(%d+)') do
		all[#all + 1] = {source = source, epoch = epoch, generation = generation, position = tonumber(position)}
	end
	return all
end

local function whole(n) return string.format('%.0f', n) end
