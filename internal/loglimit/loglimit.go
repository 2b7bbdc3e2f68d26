// Package loglimit limits the number of log lines by what causes them, and counts the lines that it leaves out. It logs
// these counts only; the caller asks it before it logs a line.
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

// Class is a kind of cause. Each class has its own total, so lines of one class never suppress lines of another.
type Class uint8

// The classes.
const (
	Override   Class = iota // operators, and programs with their permission, change overrides
	Service                 // a service that was checked before changes its state
	Target                  // a target is checked for the first time; any client can cause that
	Client                  // a request of a client is refused
	Connection              // a client connects to hacheck beacon, which prints a line for each connection
	numClasses
)

// classLimit limits the lines of a class.
type classLimit struct {
	perSubject  int // in a window
	perMinute   int // for all subjects together
	maxWindow   int // in minutes; windows grow to it while lines are left out
	forgetAfter int // in minutes without a line
}

// The classes that the daemon uses get 600 lines a minute together. A client whose requests are refused again and again
// causes one line at once, and later one line an hour.
var limits = [numClasses]classLimit{
	Override:   {perSubject: 20, perMinute: 300, maxWindow: 1, forgetAfter: 1},
	Service:    {perSubject: 30, perMinute: 180, maxWindow: 1, forgetAfter: 1},
	Target:     {perSubject: 10, perMinute: 60, maxWindow: 1, forgetAfter: 1},
	Client:     {perSubject: 10, perMinute: 60, maxWindow: 60, forgetAfter: 60},
	Connection: {perSubject: 120, perMinute: 600, maxWindow: 1, forgetAfter: 1},
}

const (
	// minute is the shortest window, and how often lines that were left out are reported.
	minute = time.Minute
	// maxSubjects bounds the remembered subjects of each class. Further subjects share one limit.
	maxSubjects = 1000
	// maxTexts bounds the remembered texts of each subject. One more text makes the others forgotten.
	maxTexts = 64
	// maxReports bounds the reports about single subjects, for each class and minute. One more report is about the
	// other subjects.
	maxReports = 10
)

// otherSubjects is the subject of the lines beyond maxSubjects.
const otherSubjects = "others"

// Limiter decides which lines a log gets. It is safe for concurrent use and owns no goroutine. A nil Limiter
// allows every line.
type Limiter struct {
	log  *slog.Logger
	seed maphash.Seed

	mu      sync.Mutex
	classes [numClasses]classState
	ticking bool // a timer will call tick within a minute
}

// classState holds the lines and subjects of a class.
type classState struct {
	written  int // in this minute
	subjects map[string]*subject
}

// subject is what lines are about: a service, or the network of a client. Times are in minutes.
type subject struct {
	window, age int // length of the current window, and its age
	idle        int // time without a line
	written     int // lines in this window
	leftOut     int // lines left out and not reported yet
	last        string
	texts       map[uint64]struct{} // hashes of the texts that AllowOnce has allowed
}

// New returns a Limiter, which reports to log what it leaves out.
func New(log *slog.Logger) *Limiter { return &Limiter{log: log, seed: maphash.MakeSeed()} }

// Allow reports whether the caller may log message about a subject now. If not, the Limiter counts the line. Within a
// minute it logs how many lines about the subject were left out, and the last message. message must be a constant.
func (l *Limiter) Allow(c Class, subject, message string) bool {
	return l == nil || l.allow(c, subject, message, "", false)
}

// AllowOnce is Allow for lines that clients repeat. It allows one line with the same message and text, until an hour
// has passed without any. It counts the others as left out.
func (l *Limiter) AllowOnce(c Class, subject, message, text string) bool {
	return l == nil || l.allow(c, subject, message, text, true)
}

func (l *Limiter) allow(c Class, subject, message, text string, once bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.entry(c, subject)
	var hash uint64
	repeated := false
	if once {
		hash = maphash.Comparable(l.seed, [2]string{message, text})
		_, repeated = s.texts[hash]
	}
	s.idle = 0
	total := &l.classes[c].written
	if repeated || s.written >= limits[c].perSubject || *total >= limits[c].perMinute {
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

// entry returns the entry of a subject, which it adds if there is none. l.mu is held.
func (l *Limiter) entry(c Class, name string) *subject {
	all := &l.classes[c]
	if s := all.subjects[name]; s != nil {
		return s
	}
	if len(all.subjects) >= maxSubjects {
		name = otherSubjects
		if s := all.subjects[name]; s != nil {
			return s
		}
	}
	if all.subjects == nil {
		all.subjects = map[string]*subject{}
	}
	s := &subject{window: 1}
	all.subjects[strings.Clone(name)] = s
	if !l.ticking {
		l.ticking = true
		time.AfterFunc(minute, l.tick)
	}
	return s
}

// report is a log line about lines that were left out.
type report struct {
	subject string
	leftOut int
	last    string
}

// tick begins a new minute. It reports what was left out in the windows that have ended.
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

func (k *classState) endWindows(limit classLimit) (reports []report) {
	for name, s := range k.subjects {
		s.age++
		s.idle++
		switch {
		case s.age < s.window:
			continue
		case s.leftOut > 0:
			reports = append(reports, report{name, s.leftOut, s.last})
			s.window = min(2*s.window, limit.maxWindow)
		case s.idle > limit.forgetAfter:
			delete(k.subjects, name)
		}
		s.age, s.written, s.leftOut = 0, 0, 0
	}
	return largest(reports)
}

// largest returns the reports about the most lines, and one report about all the others.
func largest(reports []report) []report {
	slices.SortFunc(reports, func(a, b report) int {
		return cmp.Or(cmp.Compare(b.leftOut, a.leftOut), cmp.Compare(a.subject, b.subject))
	})
	if len(reports) <= maxReports+1 {
		return reports
	}
	rest := report{subject: strconv.Itoa(len(reports)-maxReports) + " more", last: reports[maxReports].last}
	for _, r := range reports[maxReports:] {
		rest.leftOut += r.leftOut
	}
	return append(reports[:maxReports], rest)
}

// Flush reports what was left out and not reported yet. Call it at the end of the process, because no tick follows.
func (l *Limiter) Flush() {
	if l == nil {
		return
	}
	l.mu.Lock()
	var reports []report
	for c := range l.classes {
		var list []report
		for name, s := range l.classes[c].subjects {
			if s.leftOut > 0 {
				list = append(list, report{name, s.leftOut, s.last})
				s.leftOut = 0
			}
		}
		reports = append(reports, largest(list)...)
	}
	l.mu.Unlock()
	l.write(reports)
}

func (l *Limiter) write(reports []report) {
	for _, r := range reports {
		l.log.Warn("too many log lines about one subject; some were left out", "about", r.subject, "left_out", r.leftOut, "last", r.last)
	}
}
