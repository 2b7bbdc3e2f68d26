package runner

import (
	"slices"
	"strings"

	"hacheck/internal/check"
	"hacheck/internal/textfmt"
)

// selectJobs returns the checks with the selected tags, each with the steps whose names match a pattern.
func selectJobs(checks []*check.ConfiguredCheck, o *options) []*job {
	var jobs []*job
	for _, c := range checks {
		if !hasWantedTags(c.Tags, o) {
			continue
		}
		j := &job{ConfiguredCheck: c}
		for _, s := range c.Steps {
			if s.Name = textfmt.Excerpt(s.Name, maxName); o.patterns.match(s.Name) {
				j.steps = append(j.steps, s)
			}
		}
		if len(j.steps) > 0 {
			jobs = append(jobs, j)
		}
	}
	return jobs
}

// hasWantedTags reports whether --include-tags and --exclude-tags select a check with these tags.
func hasWantedTags(tags []string, o *options) bool {
	has := func(t string) bool { return slices.Contains(tags, t) }
	if o.includeTags != nil {
		return slices.ContainsFunc(o.includeTags, has)
	}
	return !slices.ContainsFunc(o.excludeTags, has)
}

// pattern matches whole names of steps. "*" matches any text, the empty one included; other characters match
// themselves.
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
	// The first match of a part between two stars is as good as a later one, so there is no backtracking.
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

// patterns match a name that one of them matches. An empty list matches every name.
type patterns []pattern

func (p patterns) match(name string) bool {
	return len(p) == 0 || slices.ContainsFunc(p, func(one pattern) bool { return one.match(name) })
}
