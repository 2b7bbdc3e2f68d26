package check_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"hacheck/internal/check"
)

// The endpoints and the cache rely on which parts of a URL a protocol needs, and on what its answer depends.
func TestProtocols(t *testing.T) {
	type shape struct{ Check, URI, PerService, NoPort bool }
	want := map[string]shape{
		"spool":         {NoPort: true},
		"http":          {Check: true, URI: true},
		"https":         {Check: true, URI: true},
		"tcp":           {Check: true},
		"smtp":          {Check: true},
		"mysql":         {Check: true, PerService: true},
		"redis":         {Check: true, PerService: true},
		"sentinel":      {Check: true, PerService: true},
		"redis-info":    {Check: true, URI: true},
		"sentinel-info": {Check: true, URI: true},
		"haproxy":       {Check: true, PerService: true},
	}
	shapes := func(set check.Set) map[string]shape {
		got := map[string]shape{}
		for name := range want {
			p, ok := set[name]
			if !ok || p.Name != name {
				t.Errorf("%s is called %q", name, p.Name)
			}
			got[name] = shape{p.Check != nil, p.URI, p.PerService, p.PortOptional}
		}
		return got
	}
	if diff := cmp.Diff(want, shapes(check.All(check.Options{}))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// A header with the service's name makes an answer that service's own.
	for _, name := range []string{"http", "https"} {
		s := want[name]
		s.PerService = true
		want[name] = s
	}
	if diff := cmp.Diff(want, shapes(check.All(check.Options{ServiceNameHeader: "X-Service"}))); diff != "" {
		t.Errorf("with a service name header (-want +got):\n%s", diff)
	}
}
