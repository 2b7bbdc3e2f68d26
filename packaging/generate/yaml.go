package main

import (
	"fmt"
	"strings"

	"hacheck/internal/config"
)

// configFile is /etc/hacheck.yaml: every key as a comment, with its default, so that taking away one "#"
// changes nothing yet.
func configFile() string {
	var b strings.Builder
	b.WriteString(`# The configuration of hacheck; hacheck.yaml(5) has the rest. What is behind a # is the default.
# The documents that this file names (docs/...) are in /usr/share/doc/hacheck.
# After a change:
#	systemctl reload hacheck
# It fails for a wrong file, the journal says why, and the old configuration stays in force.
`)
	for _, k := range config.Keys() {
		given := k.Default
		text := sentence(k.Doc) + ": " + k.Want
		if given == "" {
			text += ", none by default"
		}
		b.WriteString("\n")
		for _, l := range wrap(text+".", 110) {
			b.WriteString("# " + l + "\n")
		}
		fmt.Fprintf(&b, "#%s\n", strings.TrimRight(k.Name+": "+given, " "))
		if k.Name == "fleet" {
			b.WriteString(`#  etcd: [https://etcd1:2379, https://etcd2:2379, https://etcd3:2379]
#  host: web17
#  groups: [rack7]
#  operators: [adm]
`)
		}
		if k.Name == "services" {
			b.WriteString(`#  web:
#    checks:
#      - {type: tcp, port: 8080}
#      - {type: http, url: "http://127.0.0.1:8080/status"}
`)
		}
	}
	return b.String()
}

// wrap breaks text into lines of at most width bytes, if its words let it.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for w := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(w) > width {
			lines = append(lines, line)
			line = ""
		}
		line = strings.TrimSpace(line + " " + w)
	}
	return append(lines, line)
}
