package follow

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"sync"

	"github.com/freehold-go/freehold"
)

// parkedKeys is which keys of each source have parked events. The loop of a source
// is the only one that changes its part.
//
// An event whose key cannot be told is parked under its stream. What follows in that stream
// has a key perhaps, which may be the one that could not be told: it waits in the stream's
// queue, and so does then every later event of its key.
type parkedKeys struct {
	mu     sync.RWMutex
	keys   map[freehold.Source]map[string]bool
	behind map[freehold.Source]map[string]string // the queue of keys that have events in another one's
}

func (p *parkedKeys) load(ctx context.Context, k Keeper, follower string, s freehold.Source) error {
	keys, behind := map[string]bool{}, map[string]string{}
	for item, err := range k.Scan(ctx, parkedSpace(follower, s), "") {
		if err != nil {
			return err
		}
		key := queueOf(item.Key)
		keys[key] = true
		if !bytes.Contains(item.Value, []byte(`"own":`)) { // most have none, and a queue may be long
			continue
		}
		var one struct{ Own *string }
		if err := json.Unmarshal(item.Value, &one); err != nil {
			return fmt.Errorf("parked event %q of %s: %w", item.Key, follower, err)
		}
		if one.Own != nil {
			behind[*one.Own] = key
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.keys == nil {
		p.keys, p.behind = map[freehold.Source]map[string]bool{}, map[freehold.Source]map[string]string{}
	}
	p.keys[s], p.behind[s] = keys, behind
	return nil
}

func (p *parkedKeys) has(s freehold.Source, key string) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.keys[s][key]
}

// queue is the key in whose queue an event has to wait, if it has to: its own, one behind
// which an earlier event of its key waits, or its stream. Those of moment are what the
// transaction under way has put behind others.
func (p *parkedKeys) queue(s freehold.Source, key, stream string, moment map[string]string) (queue string, waits bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.keys[s][key] {
		return key, true
	}
	if queue, waits = moment[key]; waits {
		return queue, true
	}
	if queue, waits = p.behind[s][key]; waits {
		return queue, true
	}
	return stream, p.keys[s][stream]
}

func (p *parkedKeys) count(s freehold.Source) int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return len(p.keys[s])
}

func (p *parkedKeys) add(s freehold.Source, key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys[s][key] = true
}

// put takes note of keys that have events in the queues of others now.
func (p *parkedKeys) put(s freehold.Source, behind map[string]string) {
	if len(behind) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.Copy(p.behind[s], behind)
}

func (p *parkedKeys) remove(s freehold.Source, key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.keys[s], key)
	maps.DeleteFunc(p.behind[s], func(_, queue string) bool { return queue == key })
}
