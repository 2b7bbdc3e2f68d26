package runner

import (
	"slices"
	"strings"

	"hacheck/internal/check"
)

// selectJobs returns the checks that have the right tags, with the steps whose names match.
func selectJobs(checks []*check.Configured, o *options) []*job {
	var jobs []*job
	for _, c := range checks {
		if !hasWantedTags(c.Tags, o) {
			continue
		}
		j := &job{Configured: c}
		for _, s := range c.Steps {
			if s.Name = clean(s.Name, maxName); o.patterns.match(s.Name) {
				j.steps = append(j.steps, s)
			}
		}
		if len(j.steps) > 0 {
			jobs = append(jobs, j)
		}
	}
	return jobs
}

func hasWantedTags(tags []string, o *options) bool {
	has := func(t string) bool { return slices.Contains(tags, t) }
	if o.includeTags != nil {
		return slices.ContainsFunc(o.includeTags, has)
	}
	return !slices.ContainsFunc(o.excludeTags, has)
}

// pattern chooses steps by their names: "*" stands for any text, also for none, and everything else for
// itself. It has to match the whole name.
type pattern string

func (p pattern) match(name string) bool {
	begin, rest, star := strings.Cut(string(p), "*")
	if !star {
		return name == begin
	}
	name, ok := strings.CutPrefix(name, begin)
	if !ok {
		return false
	}
	// Between stars the first place that fits is as good as any later one, so nothing is tried twice.
	for {
		part, after, star := strings.Cut(rest, "*")
		if !star {
			return strings.HasSuffix(name, part)
		}
		i := strings.Index(name, part)
		if i < 0 {
			return false
		}
		name, rest = name[i+len(part):], after
	}
}

// patterns match what one of them matches, and everything when there is none.
type patterns []pattern

func (p patterns) match(name string) bool {
	for _, one := range p {
		if one.match(name) {
			return true
		}
	}
	return len(p) == 0
}
