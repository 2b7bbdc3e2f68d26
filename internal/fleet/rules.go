package fleet

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"hacheck/internal/spool"
)

// The bounds of what a host obeys.
const (
	endedFor      = 30 * 24 * time.Hour // how long an ended id is known
	maxEnded      = 20_000              // ended ids; the oldest are forgotten
	maxOverrides  = 20_000              // keys of this host's scopes
	maxClockError = 5 * time.Second     // from the creation of an override to its arrival on a running watch
)

// record is an override that this host obeys.
type record struct {
	Override override `json:"override"`
	// Mod is the revision up to which this host has applied the key. A different value of the key with no larger revision
	// comes from an etcd that was restored.
	Mod  int64 `json:"mod"`
	Lost bool  `json:"lost,omitempty"` // the key is gone without a lift record
	// Own says that this host had its name in etcd while it obeyed the override. It then keeps obeying it when another
	// daemon has the name.
	Own  bool       `json:"own,omitempty"`
	Ends *time.Time `json:"ends,omitempty"` // by the clock of this host; nil: never
}

func (r *record) expired(now time.Time) bool { return r.Ends != nil && !now.Before(*r.Ends) }

// rules are the state machine of overrides (see the package comment). They decide value by value what this host obeys. The
// caller locks.
type rules struct {
	host   string
	groups []string
	log    *slog.Logger
	now    func() time.Time

	records  map[string]*record // by key below overrides/; those of this host's scopes when they began
	ended    map[string]time.Time
	header   int64             // largest revision of etcd that was applied
	revision int64             // largest revision of a key of this host's scopes
	blocked  map[string]string // keys that this host does not obey as etcd has them, and why
	warned   map[string]int64  // revisions of the keys in blocked that are in the log
	loss     string            // what etcd has lost since the last apply, so that permits have to wait; "" for nothing
	changed  bool              // since the last apply: the copy on disk is outdated
	shared   bool              // since the last apply: a value has arrived that many hosts have received at the same moment
}

func newRules(host string, groups []string, log *slog.Logger) *rules {
	return &rules{
		host: host, groups: groups, log: log, now: time.Now,
		records: map[string]*record{}, ended: map[string]time.Time{}, blocked: map[string]string{}, warned: map[string]int64{},
	}
}

// isOurs reports whether a key below overrides/ is about this host: its scope covers the host, or the host obeys an
// override of the key since a time when the configuration had other groups or another name.
func (s *rules) isOurs(key string) bool {
	return s.coversHost(key) || s.records[key] != nil
}

// coversHost reports whether the scope of a key below overrides/ covers this host.
func (s *rules) coversHost(key string) bool {
	scope, _, _ := strings.Cut(key, "/")
	return covers(scope, s.host, s.groups)
}

// load applies all keys below overrides/ as they were at revision.
func (s *rules) load(kvs map[string]*mvccpb.KeyValue, revision int64) {
	if revision < s.header {
		s.recordLoss(fmt.Sprintf("etcd went back from revision %d to %d: it was emptied or restored", s.header, revision))
		s.revision = 0
		s.changed = true
	}
	s.header = revision
	s.blocked = map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(kvs)) {
		if s.isOurs(key) {
			s.applyValue(key, kvs[key], revision, false)
		}
	}
	for key := range s.records {
		if kvs[key] == nil {
			s.handleDelete(key, revision)
		}
	}
	maps.DeleteFunc(s.warned, func(key string, _ int64) bool { _, still := s.blocked[key]; return !still })
	s.forget()
}

// handlePut applies a value that arrived on a watch.
func (s *rules) handlePut(key string, kv *mvccpb.KeyValue) {
	s.header = max(s.header, kv.ModRevision)
	if s.isOurs(key) {
		delete(s.blocked, key)
		s.shared = s.shared || !strings.HasPrefix(key, hostPrefix)
		s.applyValue(key, kv, kv.ModRevision, true)
	}
}

// handleDelete handles a key that is gone at revision: the override stays (O1).
func (s *rules) handleDelete(key string, revision int64) {
	s.header = max(s.header, revision)
	if !s.isOurs(key) {
		return
	}
	delete(s.blocked, key)
	r := s.records[key]
	switch {
	case r == nil:
	case r.expired(s.now()):
		s.drop(key)
	default:
		s.markLost(key, r, revision, "its key is gone from etcd without a lift record")
	}
}

// markLost marks r as lost: etcd does not have it any more, and this host obeys it until an operator sets or lifts its key.
func (s *rules) markLost(key string, r *record, revision int64, why string) {
	if !r.Lost {
		s.log.Warn("fleet: override was lost in etcd and stays in force; resolve it with haup or hadown and its scope",
			slog.String("override", describe(key)), slog.String("why", why))
		s.recordLoss(why + ": " + describe(key))
	}
	// What is written from now on has a larger revision, also if etcd begins at a smaller one again.
	mod := min(r.Mod, revision)
	s.changed = s.changed || !r.Lost || r.Mod != mod
	r.Lost, r.Mod = true, mod
}

// applyValue applies the value of one key of this host's scopes, as it is at revision.
func (s *rules) applyValue(key string, kv *mvccpb.KeyValue, revision int64, live bool) {
	s.revision = max(s.revision, kv.ModRevision)
	v, err := parseOverride(key, kv.Value)
	if err != nil { // O4: the record of the key stays
		s.block(key, kv.ModRevision, "override "+describe(key)+" cannot be read: "+err.Error())
		return
	}
	r := s.records[key]
	if r != nil && r.expired(s.now()) && v.ID != r.Override.ID {
		s.end(r.Override.ID)
		s.drop(key)
		r = nil
	}
	switch {
	case r != nil && v.ID == r.Override.ID:
		s.update(key, r, v, kv.ModRevision)
	case r != nil && kv.ModRevision <= r.Mod: // etcd was restored: this host has seen a later value of the key
		s.markLost(key, r, revision, "etcd has an older value of the key")
		if _, known := s.ended[v.ID]; !known {
			s.block(key, kv.ModRevision, "override "+describe(key)+" was lost in etcd, which has another one in its place")
		}
	case r != nil:
		s.end(r.Override.ID)
		s.drop(key)
		s.begin(key, v, kv.ModRevision, live)
		if next := s.records[key]; next != nil {
			next.Own = r.Own // the operator changes what keeps this host down, and does not end it
		}
	default:
		s.begin(key, v, kv.ModRevision, live)
	}
}

// update applies a value with the id that this host obeys: a lift record, or a value that was edited by hand.
func (s *rules) update(key string, r *record, v *override, mod int64) {
	if v.Lifted != nil {
		s.end(v.ID)
		s.drop(key)
		s.log.Info("fleet: override was lifted", slog.String("override", describe(key)), slog.String("by", v.Lifted.By))
		return
	}
	if r.Lost || r.Mod != mod {
		s.changed = true
	}
	r.Lost, r.Mod = false, mod
	if !sameTime(r.Override.Expires, v.Expires) {
		r.Ends = v.Expires
	}
	r.Override = *v
}

func sameTime(a, b *time.Time) bool {
	return a == nil && b == nil || a != nil && b != nil && a.Equal(*b)
}

// begin obeys v, unless it has ended or its scope does not cover this host any more.
func (s *rules) begin(key string, v *override, mod int64, live bool) {
	if v.Lifted != nil {
		s.end(v.ID)
		return
	}
	if !s.coversHost(key) {
		return
	}
	if _, known := s.ended[v.ID]; known { // O2
		return
	}
	if len(s.records) >= maxOverrides {
		s.block(key, mod, fmt.Sprintf("there are more than %d overrides for this host", maxOverrides))
		return
	}
	r := &record{Override: *v, Mod: mod, Ends: v.Expires}
	now := s.now()
	if live {
		s.compareClocks(key, r, now)
	}
	if r.expired(now) {
		return
	}
	s.records[key] = r
	s.changed = true
	s.log.Info("fleet: override is in force", slog.String("override", describe(key)), slog.String("state", r.Override.state().Word()),
		slog.String("by", v.By), slog.String("reason", v.Reason))
}

// compareClocks handles an override that arrives too long before or after its creation: the clocks of two hosts differ.
// It then ends at its arrival plus its length.
func (s *rules) compareClocks(key string, r *record, now time.Time) {
	difference := now.Sub(r.Override.Created)
	if difference.Abs() <= maxClockError {
		return
	}
	s.log.Warn("fleet: the clock of this host and of the one that set the override differ; synchronize them",
		slog.String("override", describe(key)), slog.String("by", r.Override.By), slog.Duration("difference", difference))
	if r.Override.Expires != nil {
		ends := now.Add(r.Override.Expires.Sub(r.Override.Created))
		r.Ends = &ends
	}
}

func (s *rules) drop(key string) {
	delete(s.records, key)
	s.changed = true
}

// end remembers that id is never obeyed again (O2).
func (s *rules) end(id string) {
	if _, known := s.ended[id]; !known {
		s.ended[id] = s.now()
		s.changed = true
	}
}

// forget drops ended ids that are old or too many, and records that are over.
func (s *rules) forget() {
	now := s.now()
	maps.DeleteFunc(s.ended, func(_ string, at time.Time) bool { return now.Sub(at) > endedFor })
	if n := len(s.ended) - maxEnded; n > 0 {
		oldest := slices.SortedFunc(maps.Keys(s.ended), func(a, b string) int { return s.ended[a].Compare(s.ended[b]) })
		for _, id := range oldest[:n] {
			delete(s.ended, id)
		}
	}
	for key, r := range s.records {
		if r.expired(now) {
			s.end(r.Override.ID)
			s.drop(key)
		}
	}
}

// block records why this host does not obey a key as etcd has it. It warns once of each value.
func (s *rules) block(key string, mod int64, why string) {
	s.blocked[key] = why
	if s.warned[key] != mod {
		s.warned[key] = mod
		s.log.Warn("fleet: overrides are not acknowledged", slog.String("error", why))
	}
}

func (s *rules) recordLoss(why string) {
	if s.loss == "" {
		s.loss = why
	}
}

// problem returns why this host does not obey overrides as etcd has them, "" if it does.
func (s *rules) problem() string {
	if len(s.blocked) == 0 {
		return ""
	}
	first := slices.Min(slices.Collect(maps.Keys(s.blocked)))
	if len(s.blocked) == 1 {
		return s.blocked[first]
	}
	return fmt.Sprintf("%s (and %d more)", s.blocked[first], len(s.blocked)-1)
}

// markOwn marks every override as one that this host obeys while it has its name in etcd.
func (s *rules) markOwn() {
	for _, r := range s.records {
		s.changed = s.changed || !r.Own
		r.Own = true
	}
}

// entries returns the overrides in force as entries of a spool index. refused says that another daemon has the name of
// this host: overrides for that name are then meant for the other host, and entries leaves them out unless they are Own.
func (s *rules) entries(refused bool) []spool.Entry {
	now := s.now()
	list := make([]spool.Entry, 0, len(s.records))
	for _, key := range slices.Sorted(maps.Keys(s.records)) {
		r := s.records[key]
		scope, k, err := splitOverrideKey(key)
		if err != nil || r.expired(now) || refused && !r.Own && scope == hostPrefix+s.host {
			continue
		}
		e := spool.Entry{
			Key: k, State: r.Override.state(), Reason: r.Override.Reason, By: r.Override.By, Scope: scope,
			Created: plainTime(r.Override.Created), // equal after a read of the same value: no change for the index
		}
		if r.Ends != nil {
			e.Expires = plainTime(*r.Ends)
		}
		list = append(list, e)
	}
	return list
}

// plainTime returns t as it is after a way through JSON.
func plainTime(t time.Time) time.Time { return t.Round(0).UTC() }

// lost returns the keys of the overrides in force that are lost in etcd.
func (s *rules) lost() []string {
	now := s.now()
	var list []string
	for key, r := range s.records {
		if r.Lost && !r.expired(now) {
			list = append(list, key)
		}
	}
	slices.Sort(list)
	return list
}

// parseOverride reads the value of a key below overrides/.
func parseOverride(key string, value []byte) (*override, error) {
	if _, _, err := splitOverrideKey(key); err != nil {
		return nil, err
	}
	if len(value) > maxValue {
		return nil, fmt.Errorf("its value of %d bytes is longer than %d", len(value), maxValue)
	}
	v := &override{}
	var head struct {
		V int `json:"v"`
	}
	if err := json.Unmarshal(value, &head); err == nil && head.V > version {
		v.V = head.V
		return nil, v.check() // other fields may have other types in a newer version
	}
	if err := json.Unmarshal(value, v); err != nil {
		return nil, fmt.Errorf("its value is no override: %w", err)
	}
	if err := v.check(); err != nil {
		return nil, err
	}
	return v, nil
}
