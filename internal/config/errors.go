package config

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"hacheck/internal/textfmt"
)

// maxReported bounds the errors, and the warnings, about one file: a file of something else entirely should not scroll
// its first error away.
const maxReported = 20

// Error is one thing that is wrong with a configuration file. Its text is
// "file:line: key: expected ..., got ...".
type Error struct {
	File string
	Line int    // counted from 1; 0 when the file as a whole is meant
	Key  string // "" when it is about no key
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

// Errors are all the errors of one file, in the order of its lines. At most 20 are kept; a last one then
// says how many more there are.
type Errors []*Error

// Error implements error: one line each.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Warning is a key that means nothing here. The daemon starts all the same, as the original did.
type Warning struct {
	File string
	Line int
	Key  string
	Text string // "unknown key" and, if one is near, the key that may have been meant
}

// String returns "file:line: key: text".
func (w Warning) String() string { return (&Error{w.File, w.Line, w.Key, w.Text}).Error() }

// loader reads one file.
type loader struct {
	file     string
	errs     Errors
	warnings []Warning
	moreErrs int
	moreWarn int
}

func (l *loader) errorf(line int, key, format string, args ...any) {
	if len(l.errs) < maxReported {
		l.errs = append(l.errs, &Error{l.file, line, key, fmt.Sprintf(format, args...)})
		return
	}
	l.moreErrs++
}

// reportMore says how many errors there are beyond those kept. It comes last.
func (l *loader) reportMore() {
	if l.moreErrs > 0 {
		l.errs = append(l.errs, &Error{File: l.file, Text: fmt.Sprintf("and %d more errors", l.moreErrs)})
	}
}

func byLine(a, b *Error) int { return cmp.Compare(a.Line, b.Line) }

// splitJoined takes joined errors apart.
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
