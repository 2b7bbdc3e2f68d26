package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"hacheck/internal/textfmt"
)

// maxReported bounds the errors, and the warnings, about one file: a file of something else entirely should not scroll
// its first error away.
const maxReported = 20

// Error is one error in a file. Its text is "file:line: key: expected ..., got ...".
type Error struct {
	File string
	Line int    // counted from 1; 0 for the file as a whole
	Key  string // "" for an error about no key
	Text string // "expected ..., got ..."; never the value of a secret
}

// Error implements error.
func (e *Error) Error() string {
	s := e.File
	if e.Line > 0 {
		s += ":" + strconv.Itoa(e.Line)
	}
	if e.Key != "" {
		s += ": " + e.Key
	}
	return textfmt.OneLine(s + ": " + e.Text)
}

// Errors are all the errors in one file, in the order of its lines. It holds at most 20, and one more that counts the
// rest.
type Errors []*Error

// Error returns one line for each error.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Warning is an unknown key. The daemon starts all the same, as the original did.
type Warning struct {
	File string
	Line int
	Key  string
	Text string // "unknown key", and a known key with a similar name if there is one
}

// String returns "file:line: key: text".
func (w Warning) String() string { return (&Error{w.File, w.Line, w.Key, w.Text}).Error() }

// loader reads one file and collects what is wrong with it.
type loader struct {
	file     string
	errs     Errors
	warnings []Warning
	moreErrs int // beyond errs
	moreWarn int // beyond warnings
}

func (l *loader) errorf(line int, key, format string, args ...any) {
	if len(l.errs) < maxReported {
		l.errs = append(l.errs, &Error{l.file, line, key, fmt.Sprintf(format, args...)})
		return
	}
	l.moreErrs++
}

// finish returns the errors of the file in the order of its lines, or nil if there are none. It is called last.
func (l *loader) finish() error {
	if len(l.errs) == 0 {
		return nil
	}
	slices.SortStableFunc(l.errs, byLine)
	if l.moreErrs > 0 {
		l.errs = append(l.errs, &Error{File: l.file, Text: fmt.Sprintf("and %d more errors", l.moreErrs)})
	}
	return l.errs
}

func byLine(a, b *Error) int { return cmp.Compare(a.Line, b.Line) }

// splitJoined returns the errors that errors.Join has joined to err.
func splitJoined(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, err := range joined.Unwrap() {
		all = append(all, splitJoined(err)...)
	}
	return all
}
