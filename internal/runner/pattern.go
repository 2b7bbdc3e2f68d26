package runner

import "strings"

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
