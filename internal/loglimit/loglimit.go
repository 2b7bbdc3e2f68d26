// Package loglimit limits how many lines a log gets, by what causes them, and counts the lines that it leaves
// out. It writes no other line than those about the count: the caller asks, and writes its line itself.
package loglimit

import (
	"cmp"
	"hash/maphash"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Class is a kind of cause. Each class has a total of its own, so lines of one class never keep out those of
// another.
type Class uint8

// The classes.
const (
	Override   Class = iota // operators change overrides, and programs that they allow to
	Service                 // a service that was checked before changes its state
	Target                  // something is checked for the first time; any client can ask for that
	Client                  // what a client asks for is refused
	Connection              // a client connects to hacheck beacon, which prints a line for each connection
	classes
)

// limit is how many lines a class gets.
type limit struct {
	each    int // in a window, about one subject
	total   int // in a minute
	longest int // minutes to which a window grows while lines of its subject are left out
	forget  int // minutes without a line until a subject is forgotten
}

// The totals of the classes that the daemon uses are 600 lines a minute. A client that is refused over and over
// gets its first line at once and one line an hour in the end.
var limits = [classes]limit{
	Override:   {each: 20, total: 300, longest: 1, forget: 1},
	Service:    {each: 30, total: 180, longest: 1, forget: 1},
	Target:     {each: 10, total: 60, longest: 1, forget: 1},
	Client:     {each: 10, total: 60, longest: 60, forget: 60},
	Connection: {each: 120, total: 600, longest: 1, forget: 1},
}

const (
	// minute is the shortest window, and how often lines that were left out are reported.
	minute = time.Minute
	// maxSubjects bounds the subjects that are remembered of each class. Further subjects share one limit.
	maxSubjects = 1000
	// maxTexts bounds the texts that are remembered of each subject. When there are more they are forgotten.
	maxTexts = 64
	// maxReports bounds the reports about single subjects, of each class and minute. One more report is about
	// the rest of them.
	maxReports = 10
)

// others is the subject of what maxSubjects has no room for.
const others = "others"

// Limiter decides which lines a log gets. It is safe for concurrent use and owns no goroutine. A nil Limiter
// allows every line.
type Limiter struct {
	log  *slog.Logger
	seed maphash.Seed

	mu      sync.Mutex
	classes [classes]class
	ticking bool // a timer calls tick within a minute
}

type class struct {
	written  int // in this minute
	subjects map[string]*subject
}

// subject is what lines are about: a service, or the network of a client.
type subject struct {
	window, age int // in minutes: of the current window
	quiet       int // minutes without a line
	written     int // lines in this window
	leftOut     int // lines that were left out and not reported yet
	last        string
	texts       map[uint64]struct{} // hashes of what AllowOnce has allowed
}

// New returns a Limiter. It reports to log what was left out.
func New(log *slog.Logger) *Limiter { return &Limiter{log: log, seed: maphash.MakeSeed()} }

// Allow reports whether the log gets a line with that message about a subject now. If not, the line is counted:
// within a minute the log gets one line that says how many lines about the subject were left out and which
// message was the last. message must be a constant.
func (l *Limiter) Allow(c Class, about, message string) bool {
	return l == nil || l.allow(c, about, message, "", false)
}

// AllowOnce is Allow for lines that clients repeat: of the same message and text the log gets one line until an
// hour has passed without any. The others are counted as left out.
func (l *Limiter) AllowOnce(c Class, about, message, text string) bool {
	return l == nil || l.allow(c, about, message, text, true)
}

func (l *Limiter) allow(c Class, about, message, text string, once bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.subject(c, about)
	var hash uint64
	repeated := false
	if once {
		hash = maphash.Comparable(l.seed, [2]string{message, text})
		_, repeated = s.texts[hash]
	}
	s.quiet = 0
	total := &l.classes[c].written
	if repeated || s.written >= limits[c].each || *total >= limits[c].total {
		s.leftOut++
		s.last = message
		return false
	}
	s.written++
	*total++
	if once {
		if s.texts == nil || len(s.texts) >= maxTexts {
			s.texts = map[uint64]struct{}{}
		}
		s.texts[hash] = struct{}{}
	}
	return true
}

// subject returns what is remembered of a subject, from now on if nothing is. l.mu is held.
func (l *Limiter) subject(c Class, about string) *subject {
	k := &l.classes[c]
	if s := k.subjects[about]; s != nil {
		return s
	}
	if len(k.subjects) >= maxSubjects {
		about = others
		if s := k.subjects[about]; s != nil {
			return s
		}
	}
	if k.subjects == nil {
		k.subjects = map[string]*subject{}
	}
	s := &subject{window: 1}
	k.subjects[strings.Clone(about)] = s
	if !l.ticking {
		l.ticking = true
		time.AfterFunc(minute, l.tick)
	}
	return s
}

// report is what the log gets about lines that were left out.
type report struct {
	about   string
	leftOut int
	last    string
}

// tick begins a new minute: it reports what was left out in the windows that have ended.
func (l *Limiter) tick() {
	l.mu.Lock()
	var reports []report
	l.ticking = false
	for c := range l.classes {
		k := &l.classes[c]
		k.written = 0
		reports = append(reports, k.endWindows(limits[c])...)
		l.ticking = l.ticking || len(k.subjects) > 0
	}
	if l.ticking {
		time.AfterFunc(minute, l.tick)
	}
	l.mu.Unlock()
	l.write(reports)
}

func (k *class) endWindows(limit limit) (reports []report) {
	for about, s := range k.subjects {
		s.age++
		s.quiet++
		switch {
		case s.age < s.window:
			continue
		case s.leftOut > 0:
			reports = append(reports, report{about, s.leftOut, s.last})
			s.window = min(2*s.window, limit.longest)
		case s.quiet > limit.forget:
			delete(k.subjects, about)
		}
		s.age, s.written, s.leftOut = 0, 0, 0
	}
	return most(reports)
}

// most returns the reports about most lines, and one about all the others.
func most(reports []report) []report {
	slices.SortFunc(reports, func(a, b report) int {
		return cmp.Or(cmp.Compare(b.leftOut, a.leftOut), cmp.Compare(a.about, b.about))
	})
	if len(reports) <= maxReports+1 {
		return reports
	}
	rest := report{about: strconv.Itoa(len(reports)-maxReports) + " more", last: reports[maxReports].last}
	for _, r := range reports[maxReports:] {
		rest.leftOut += r.leftOut
	}
	return append(reports[:maxReports], rest)
}

// Flush reports at once what was left out and not reported yet: no tick comes after the end of the process.
func (l *Limiter) Flush() {
	if l == nil {
		return
	}
	l.mu.Lock()
	var reports []report
	for c := range l.classes {
		var list []report
		for about, s := range l.classes[c].subjects {
			if s.leftOut > 0 {
				list = append(list, report{about, s.leftOut, s.last})
				s.leftOut = 0
			}
		}
		reports = append(reports, most(list)...)
	}
	l.mu.Unlock()
	l.write(reports)
}

func (l *Limiter) write(reports []report) {
	for _, r := range reports {
		l.log.Warn("too many log lines about one subject; some were left out", "about", r.about, "left_out", r.leftOut, "last", r.last)
	}
}
