-- The invalidations that replicas share: a sorted set, by scope the number of its last invalidation. Runs as a poll,
-- which writes nothing, or as a write.
--
-- KEYS[1]   the sorted set; its name is that of the channel on which replicas are told of news, too
-- ARGV[1]   the greatest number the caller has heard of, 0 if none
-- ARGV[2]   the scope that has it
-- ARGV[3]   'hear', 'check' if what the caller knows may be gone, or 'restore' to put it back
-- ARGV[4]   how many scopes are to be invalidated; those follow, then, unless it hears, pairs of scope and number
--
-- Returns 'news' and pairs of scope and number greater than ARGV[1], or 'lost' if what the caller has heard of is gone,
-- or nothing is there at all: then it is to restore.
local generations, known, newest = KEYS[1], tonumber(ARGV[1]), ARGV[2]
local restores, invalidates = ARGV[3] == 'restore', tonumber(ARGV[4])

local function text(number)
    return string.format('%.0f', number)
end

local function of(scope)
    return tonumber(redis.call('ZSCORE', generations, scope) or 0)
end

local function raise(scope, number)
    redis.call('ZADD', generations, 'GT', text(number), scope)
end

local function at_rank(rank)
    return tonumber(redis.call('ZRANGE', generations, rank, rank, 'WITHSCORES')[2] or 0)
end

local mine = { all = 0 }
for i = 5 + invalidates, #ARGV, 2 do
    mine[ARGV[i]] = tonumber(ARGV[i + 1])
end

-- A store that lost its last writes lost the newest first. Where that was invalidated again since, others show it; those
-- that are to be invalidated now have no number of their own yet.
local function is_lost()
    if at_rank(-1) == 0 or math.max(of(newest), of('all')) < known then
        return true
    end
    local waits = {}
    for i = 5, 4 + invalidates do
        waits[ARGV[i]] = true
    end
    for scope, number in pairs(mine) do
        if not waits[scope] and math.max(of(scope), of('all')) < number then
            return true
        end
    end
    return false
end

if not restores and is_lost() then
    return { 'lost' }
end

-- Hundredths of seconds, or one more than any number so far: what was lost has smaller numbers than what comes.
local time = redis.call('TIME')
local fresh = math.max(time[1] * 100 + math.floor(time[2] / 10000), at_rank(-1) + 1, known + 1)

if restores then
    -- The caller heard of every invalidation up to `known`, yet not of these: their numbers were given twice.
    local stored = redis.call('ZRANGE', generations, '-inf', text(known), 'BYSCORE', 'WITHSCORES')
    for i = 1, #stored, 2 do
        if math.max(mine[stored[i]] or 0, mine.all) < tonumber(stored[i + 1]) then
            raise(stored[i], fresh)
        end
    end
    for scope, number in pairs(mine) do
        if number > 0 then
            raise(scope, number)
        end
    end
    -- Values may be there from before the loss, and nobody knows what was invalidated since.
    if at_rank(-1) == 0 then
        raise('all', fresh)
    end
end

for i = 5, 4 + invalidates do
    raise(ARGV[i], fresh)
end

if restores or invalidates > 0 then
    -- Too many: the oldest become one invalidation of everything at the greatest number among them.
    if redis.call('ZCARD', generations) > 8192 then
        local covered = at_rank(4095)
        redis.call('ZREMRANGEBYRANK', generations, 0, 4095)
        raise('all', covered)
    end
    redis.call('PUBLISH', generations, '')
end

local reply = { 'news' }
for i, part in ipairs(redis.call('ZRANGE', generations, '(' .. text(known), '+inf', 'BYSCORE', 'WITHSCORES')) do
    reply[i + 1] = i % 2 == 1 and part or text(tonumber(part))
end
return reply
