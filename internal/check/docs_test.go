package check_test

import (
	"os"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"hacheck/internal/check"
)

// docs/checks-logins.md has every option of the checks with logins, with its default, and valid examples.
func TestDocumentedLogins(t *testing.T) {
	text, err := os.ReadFile("../../docs/checks-logins.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	examples := map[string]int{}
	parts := strings.Split(page, "```yaml\n")
	for _, part := range parts[1:] {
		example, _, _ := strings.Cut(part, "```")
		var specs []map[string]any
		if err := yaml.Unmarshal([]byte(example), &specs); err != nil {
			t.Fatalf("%v in\n%s", err, example)
		}
		for _, options := range specs {
			typ, _ := options["type"].(string)
			c, err := check.Build(check.Spec{Type: typ, Options: options}, check.Defaults{})
			if err != nil {
				t.Errorf("example %v: %v", options, err)
				continue
			}
			examples[c.Type]++
		}
	}
	common, _, _ := strings.Cut(page, "\n## ")
	for _, typ := range check.Types() {
		heading := map[string]string{
			"postgres": "postgres (postgresql)", "mysql": "mysql", "redis": "redis, sentinel", "sentinel": "redis, sentinel",
			"memcache": "memcache (memcached)", "mongodb": "mongodb (mongo)", "amqp": "amqp", "smtp": "smtp", "ldap": "ldap", "haproxy": "haproxy",
		}[typ.Name]
		if heading == "" {
			continue // on another page
		}
		if examples[typ.Name] == 0 {
			t.Errorf("no example of %s", typ.Name)
		}
		_, section, found := strings.Cut(page, "\n## "+heading+"\n")
		if !found {
			t.Errorf("no section %q", heading)
		}
		section, _, _ = strings.Cut(section, "\n## ")
		for _, o := range typ.Options {
			if !strings.Contains(section, "`"+o.Name+"`") && !strings.Contains(common, "`"+o.Name+"`") {
				t.Errorf("%s: option %s is not documented", typ.Name, o.Name)
			}
			number, _, _ := strings.Cut(o.Default, ",")
			if o.Name == "port" && number != "" && !strings.Contains(section, "`"+number+"`") {
				t.Errorf("%s: the default port %s is not documented", typ.Name, number)
			}
		}
	}
}
