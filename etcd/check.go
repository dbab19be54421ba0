package etcd

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/freehold-go/freehold"
)

// Size is how much room the members' databases take, in bytes: the largest of them.
type Size struct {
	Used  int64
	Quota int64 // 0 if members do not tell
}

// Size returns the members' size as last seen, at most about ten seconds ago, or one
// second where more than half of the quota is used, and what this process has written since.
func (db *DB) Size() Size {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.size
}

// full is the part of the quota at which writing stops, so that there is room left
// to compact and to adjust.
const full = 0.95

// grow counts what was written since the members were asked.
func (db *DB) grow(bytes int) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.size.Used += int64(bytes)
}

// near reports whether the quota is near enough to look each second.
func (s Size) near() bool { return s.Quota > 0 && float64(s.Used) > 0.5*float64(s.Quota) }

// admit returns those that may write now: where members have no room left, only what
// frees some. These come to stand first, and are committed without the others, which
// are refused behind them.
func (db *DB) admit(waiting jobs) (jobs, error) {
	size := db.Size()
	if size.Quota == 0 || float64(size.Used) < full*float64(size.Quota) {
		return waiting, nil
	}
	n := 0
	for i, j := range waiting {
		if j.Work.frees {
			copy(waiting[n+1:i+1], waiting[n:i])
			waiting[n] = j
			n++
		}
	}
	if n > 0 {
		return waiting[:n], nil
	}
	return nil, fmt.Errorf("etcd: %s at %s: the members have %d of %d bytes in use: compact and defragment them, or raise --quota-backend-bytes, and let old events be cut (retain=168h in the URL): only what the cut needs is written before: %w",
		db.name, db.at.shown, size.Used, size.Quota, freehold.ErrUnavailable)
}

// measure asks all members for their size. One that does not answer is left out, as
// long as one does.
func (db *DB) measure(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var size Size
	var failed error
	answered := 0
	for _, endpoint := range db.at.config.Endpoints {
		one, cancel := context.WithTimeout(ctx, 2*time.Second)
		status, err := db.client.Status(one, endpoint)
		cancel()
		if err != nil {
			failed = fmt.Errorf("%s: %w", endpoint, err)
			continue
		}
		answered++
		size.Used, size.Quota = max(size.Used, status.DbSizeInUse), max(size.Quota, status.DbSizeQuota)
	}
	if answered == 0 {
		return failed
	}
	db.mu.Lock()
	db.size = size
	db.mu.Unlock()
	return nil
}

// auditSettings reads back what durability rests on. It runs behind a first commit.
func (db *DB) auditSettings(ctx context.Context) error {
	members, err := db.client.MemberList(ctx)
	if err != nil {
		return err
	}
	voters := 0
	for _, m := range members.Members {
		if !m.IsLearner {
			voters++
		}
	}
	db.audit = append(db.audit, fmt.Sprintf("%d members, of which %d may be away", voters, (voters-1)/2))
	alarms, err := db.client.AlarmList(ctx)
	if err == nil && len(alarms.Alarms) > 0 {
		return fmt.Errorf("the members have an alarm (%s): see etcdctl alarm list", alarms.Alarms[0].Alarm)
	}
	status, err := db.client.Status(ctx, db.at.config.Endpoints[0])
	if err == nil {
		db.audit = append(db.audit, "version "+status.Version)
	}
	unsynced, told := 0, 0
	for _, endpoint := range db.at.config.Endpoints {
		syncs, err := db.syncs(ctx, endpoint)
		if err != nil {
			continue
		}
		told++
		if syncs == 0 {
			unsynced++
		}
	}
	switch {
	case told == 0:
		db.audit = append(db.audit, "members do not show whether they sync (/metrics): they do unless they were started with --unsafe-no-fsync")
	case unsynced > 0 && !db.opts.Relaxed:
		return fmt.Errorf("%d of %d members have synced nothing: start them without --unsafe-no-fsync, or say Options.Relaxed", unsynced, told)
	case unsynced > 0:
		db.audit = append(db.audit, fmt.Sprintf("relaxed: %d members do not sync; a power cut may lose the last commits", unsynced))
	default:
		db.audit = append(db.audit, "a majority syncs every commit before it is answered")
	}
	return nil
}

// syncs reads how often a member has synced its log.
func (db *DB) syncs(ctx context.Context, endpoint string) (n float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	transport := &http.Transport{TLSClientConfig: db.at.config.TLS, DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "etcd_disk_wal_fsync_duration_seconds_count "); ok {
			return strconv.ParseFloat(text, 64)
		}
	}
	return 0, fmt.Errorf("%s/metrics says nothing about syncs (%s)", endpoint, resp.Status)
}

// Check connects to the members at a URL, changes nothing, and says in words what Open
// would find.
func Check(ctx context.Context, url string, name freehold.Source) ([]string, error) {
	at, err := parse(url)
	if err != nil {
		return nil, fmt.Errorf("etcd: URL of %s: %w", name, err)
	}
	db := &DB{name: name, at: at}
	if db.client, err = clientv3.New(at.config); err != nil {
		return nil, db.wrap(fmt.Errorf("connect: %w", err))
	}
	defer db.client.Close()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := db.measure(ctx); err != nil {
		return nil, db.wrap(err)
	}
	resp, err := db.client.Get(ctx, db.key(kindJournal))
	if err == nil {
		err = db.auditSettings(ctx)
	}
	if err != nil {
		return db.audit, db.wrap(err)
	}
	if size := db.Size(); size.Quota > 0 {
		db.audit = append(db.audit, fmt.Sprintf("%d of %d MiB used", size.Used>>20, size.Quota>>20))
	}
	if len(resp.Kvs) == 0 {
		return append(db.audit, "no journal yet: the first start makes it"), nil
	}
	var m meta
	if err := json.Unmarshal(resp.Kvs[0].Value, &m); err != nil {
		return db.audit, db.wrap(fmt.Errorf("the prefix holds something else than a journal (%w): give another one", err))
	}
	if err := m.suits(name); err != nil {
		return db.audit, db.wrap(err)
	}
	return append(db.audit, "journal of "+string(m.Source)), nil
}
