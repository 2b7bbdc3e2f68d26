package spool

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"hacheck/internal/textfmt"
)

// The bounds of a weight.
const (
	// MaxWeight is the weight without a Weight, in percent.
	MaxWeight = 100
	// WeightEndTime is how long after its end a weight still has the agent say MaxWeight. HAProxy keeps the last weight
	// that it has read, so each of its agent connections must read the end once. A reload of HAProxy or a balancer that
	// was away takes minutes.
	WeightEndTime = 24 * time.Hour
	// maxWeightLink bounds the target of the symbolic link, in bytes. A longer name would be ENAMETOOLONG and not ENOENT
	// for a program that follows the link.
	maxWeightLink = 255
	// maxWeights is how many weights an Index holds. Each service of a host has a few keys.
	maxWeights = 10_000
)

// weightPrefix is the prefix of the names of weights; a Key.Name follows. weightMark begins the target of the link.
const (
	weightPrefix = ownPrefix + "weight."
	weightMark   = "hacheck-weight:"
)

// Weight is the part of its traffic that a service gets, in percent of the weight that the balancer has configured. It
// is no override: the service stays up, and every override is stronger. Of several weights in force that cover a target
// the one of the narrowest key counts.
//
// On disk a weight is a symbolic link `#hacheck-weight.KEY` whose target is not a path but the weight itself. The
// original tools take every file that they can open for a down, and a name that does not exist for an up; opening a
// link to nothing fails with ENOENT, so that they see nothing. A link is also read and replaced as a whole, and it
// survives a restart and, after a sync of the directory, a power cut. Anything else under such a name is reported and
// ignored: it is no weight, no up and no down.
//
// A weight does not disappear when it ends. Its record then has an end in the past, and for WeightEndTime the agent says
// 100% because of it. Thus a restart of the daemon in between leaves no balancer with the old weight, and the end by
// time and the end by a command are the same. The record of a command has the percentage MaxWeight too: it stays that of
// an end if the clock is set back.
type Weight struct {
	Key     Key
	Percent int    // 1 to MaxWeight
	By      string // who has set it, as Entry.By
	Created time.Time
	Expires time.Time // zero: never
}

// At returns the percentage to tell balancers at now: Percent, then MaxWeight for WeightEndTime, then 0 for nothing.
func (w *Weight) At(now time.Time) int {
	switch {
	case !w.HasEnded(now):
		return w.Percent
	case now.Sub(w.Expires) < WeightEndTime:
		return MaxWeight
	}
	return 0
}

// HasEnded reports whether w is not in force any more at now.
func (w *Weight) HasEnded(now time.Time) bool {
	return !w.Expires.IsZero() && (w.Percent == MaxWeight || !now.Before(w.Expires))
}

// ParsePercent reads a weight as operators write it: 25 or 25%, from 1 to MaxWeight.
func ParsePercent(text string) (int, error) {
	digits := strings.TrimSuffix(text, "%")
	percent, err := strconv.ParseUint(digits, 10, 8)
	if err != nil || percent < 1 || percent > MaxWeight {
		return 0, fmt.Errorf("weight %s: want 1%% to %d%%, as in 25%%", strconv.Quote(textfmt.Truncate(text, 40)), MaxWeight)
	}
	return int(percent), nil
}

// weightName returns the file name of the weight of k.
func weightName(k Key) string { return weightPrefix + k.canonical().Name() }

// weightKey returns the key of the weight that the file name is.
func weightKey(name string) (Key, bool) {
	rest, ok := strings.CutPrefix(name, weightPrefix)
	if !ok {
		return Key{}, false
	}
	k, err := ParseKey(rest)
	return k, err == nil && k.canonical().Name() == rest
}

// weightRecord is a Weight in the target of a link. Times are unix seconds.
type weightRecord struct {
	Weight     int    `json:"weight"`
	By         string `json:"by,omitempty"`
	Creation   int64  `json:"creation"`
	Expiration int64  `json:"expiration,omitempty"`
}

// check returns an error if w cannot be written.
func (w *Weight) check() error {
	if err := w.Key.Check(); err != nil {
		return err
	}
	if w.Percent < 1 || w.Percent > MaxWeight {
		return fmt.Errorf("weight %d%%: want 1%% to %d%%", w.Percent, MaxWeight)
	}
	return nil
}

// marshal returns the target of the link. It leaves out By if there is no room for it.
func (w *Weight) marshal() (string, error) {
	r := weightRecord{Weight: w.Percent, By: w.By, Creation: w.Created.Unix()}
	if !isValidBy(r.By) {
		r.By = ""
	}
	if !w.Expires.IsZero() {
		r.Expiration = w.Expires.Unix()
	}
	b, err := json.Marshal(r)
	if err == nil && len(weightMark)+len(b) > maxWeightLink {
		r.By = ""
		b, err = json.Marshal(r)
	}
	return weightMark + string(b), err
}

// parseWeight reads the target of the link of k.
func parseWeight(k Key, target string) (*Weight, error) {
	text, ok := strings.CutPrefix(target, weightMark)
	var r weightRecord
	if !ok || len(target) > maxWeightLink || json.Unmarshal([]byte(text), &r) != nil {
		return nil, fmt.Errorf("not a weight that haup --weight has written")
	}
	w := &Weight{Key: k, Percent: r.Weight, Created: time.Unix(r.Creation, 0)}
	if isValidBy(r.By) {
		w.By = r.By
	}
	if r.Expiration != 0 {
		w.Expires = time.Unix(r.Expiration, 0)
	}
	if err := w.check(); err != nil {
		return nil, err
	}
	return w, nil
}
