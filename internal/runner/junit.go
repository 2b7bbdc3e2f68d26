package runner

import (
	"encoding/xml"
	"io"
	"strconv"
	"time"
)

// The elements of a JUnit report that its common readers agree on.
type (
	junitSuites struct {
		XMLName xml.Name   `xml:"testsuites"`
		Suite   junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Errors   int         `xml:"errors,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Time     string      `xml:"time,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Class   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		Time    string        `xml:"time,attr"`
		Failure *junitFailure `xml:"failure"`
		Skipped *struct{}     `xml:"skipped"`
	}
	junitFailure struct {
		Type    string `xml:"type,attr"`
		Message string `xml:"message,attr"`
	}
)

func (p *printer) junit(rep *report) error {
	seconds := func(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 6, 64) }
	s := junitSuite{
		Name: "hacheck run", Tests: len(rep.results), Failures: rep.count(failed), Skipped: rep.count(skipped), Time: seconds(rep.took),
	}
	for _, r := range rep.results {
		c := junitCase{Class: r.job.Type, Name: r.name, Time: seconds(r.took)}
		switch r.status {
		case failed:
			c.Failure = &junitFailure{r.reason.String(), r.message}
		case skipped:
			c.Skipped = &struct{}{}
		case passed:
		}
		s.Cases = append(s.Cases, c)
	}
	if _, err := io.WriteString(p.out, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(p.out)
	e.Indent("", "  ")
	if err := e.Encode(junitSuites{Suite: s}); err != nil {
		return err
	}
	_, err := io.WriteString(p.out, "\n")
	return err
}
