package main

import (
	"fmt"
	"strings"
)

// completions are the scripts for bash, zsh and fish by their path. They know the options, which values are
// files or one of a few words, and complete the names of services from the overrides (hashowdowned) and from
// what balancers asked about lately (halist).
func completions(pages []*page) map[string]string {
	files := map[string]string{
		"completions/bash/hacheck": bash(pages),
		"completions/zsh/_hacheck": zsh(pages),
	}
	for _, group := range byCommand(pages) {
		files["completions/fish/"+group[0].name+".fish"] = fish(group)
	}
	return files
}

// takesServices reports whether the positional arguments are services.
func (p *page) takesServices() bool { return strings.Contains(p.usage[0], "SERVICE") }

// takesFiles reports whether they are files.
func (p *page) takesFiles() bool { return strings.Contains(p.usage[0], " FILE") }

// words are the values of which an option takes one, or nil. The help says "ACTION is up, down, status or
// list" and "FORM of the report: text (default), json, junit or nagios".
func (o option) words() []string {
	_, list, ok := strings.Cut(o.text, o.value+" is ")
	if !ok {
		if _, list, ok = strings.Cut(o.text, ": "); !ok || !strings.Contains(list, " or ") {
			return nil
		}
	}
	list, _, _ = strings.Cut(list, ";")
	list = strings.ReplaceAll(list, " (default)", "")
	list, _, _ = strings.Cut(list, " (")
	var words []string
	for w := range strings.SplitSeq(strings.ReplaceAll(list, " or ", ", "), ", ") {
		if w = strings.TrimSpace(w); w == "" || strings.Trim(w, "abcdefghijklmnopqrstuvwxyz_") != "" {
			return nil
		}
		words = append(words, w)
	}
	return words
}

func (o option) isFile() bool {
	return o.value == "FILE" || o.value == "PATH" || o.value == "DIR"
}

// services is a command of sh that names services, one a line; a user who may not look sees none. Its arguments are the
// words before the cursor. Of these it passes on the options that say where the overrides and the daemon are.
func (p *page) services() string {
	const (
		options = `n=$#; while [ $n -gt 0 ]; do o=$1; shift; n=$((n-1)); case $o in ` +
			`-p|--port|--spool-root|--control-socket) if [ $n -gt 0 ]; then v=$1; shift; n=$((n-1)); ` +
			`case $v in "~/"*) v=$HOME/${v#"~/"};; esac; set -- "$@" "$o" "$v"; fi;; ` +
			`-p?*|--port=*|--spool-root=*|--control-socket=*) set -- "$@" "$o";; esac; done; `
		downed = `hashowdowned "$@" 2>/dev/null | cut -f3 | cut -d: -f1`
		asked  = `halist "$@" 2>/dev/null | cut -d" " -f1`
	)
	if p.name == "haup" {
		return options + `{ echo all; ` + downed + `; } | sort -u`
	}
	return options + `{ echo all; ` + downed + `; ` + asked + `; } | sort -u`
}

// byCommand groups the pages of one command; the first is its own.
func byCommand(pages []*page) (groups [][]*page) {
	for _, p := range pages {
		if !strings.Contains(p.name, " ") {
			groups = append(groups, nil)
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], p)
	}
	return groups
}

func bash(pages []*page) string {
	var b strings.Builder
	b.WriteString(`# Completion of hacheck's commands for bash. Written by packaging/generate.

# _hacheck_reply WORDS completes the current word to one of WORDS.
_hacheck_reply() {
	local IFS=$' \t\n'
	COMPREPLY=($(compgen -W "$1" -- "$cur"))
}

# _hacheck_typed sets typed to the words before the cursor, without their quotes. xargs knows quotes and runs nothing of what
# is between them. It refuses a quote that is still open.
_hacheck_typed() {
	local word line=${COMP_LINE:0:COMP_POINT}
	while IFS= read -r word; do
		typed+=("$word")
	done < <(xargs printf '%s\n' 2>/dev/null <<<"$line")
	((${#typed[@]})) || read -ra typed <<<"$line"
}

_hacheck() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} cmd=${COMP_WORDS[0]##*/} i
	local -a typed
	COMPREPLY=()
	# --option=VALUE arrives as three words.
	if [[ $cur == = ]]; then
		cur= prev=$prev=
	elif [[ $prev == = ]]; then
		prev=${COMP_WORDS[COMP_CWORD-2]}=
	fi
	for ((i = 1; i < COMP_CWORD; i++)); do
		case "$cmd ${COMP_WORDS[i]}" in
`)
	var subs []string
	for _, p := range pages {
		if strings.Contains(p.name, " ") {
			subs = append(subs, fmt.Sprintf("%q", p.name))
		}
	}
	fmt.Fprintf(&b, "\t\t%s) cmd=\"$cmd ${COMP_WORDS[i]}\" ;;\n\t\t*) break ;;\n\t\tesac\n\tdone\n\tcase \"$cmd $prev\" in\n", strings.Join(subs, " | "))
	for _, p := range pages {
		for _, o := range p.options {
			if o.value == "" {
				continue
			}
			pattern := fmt.Sprintf("%q", p.name+" --"+o.long+"=")
			if !o.optional {
				pattern = fmt.Sprintf("%q | ", p.name+" --"+o.long) + pattern
			}
			if o.short != "" {
				pattern = fmt.Sprintf("%q | ", p.name+" -"+o.short) + pattern
			}
			do := ":"
			switch {
			case o.words() != nil:
				do = fmt.Sprintf("_hacheck_reply %q", strings.Join(o.words(), " "))
			case o.isFile():
				do = `compopt -o default`
			}
			fmt.Fprintf(&b, "\t%s)\n\t\t%s\n\t\treturn\n\t\t;;\n", pattern, do)
		}
	}
	b.WriteString("\tesac\n\tif [[ $cur == -* ]]; then\n\t\tcase $cmd in\n")
	for _, p := range pages {
		var words []string
		for _, o := range p.options {
			words = append(words, "--"+o.long)
			if o.short != "" {
				words = append(words, "-"+o.short)
			}
		}
		fmt.Fprintf(&b, "\t\t%q) _hacheck_reply %q ;;\n", p.name, strings.Join(words, " "))
	}
	b.WriteString("\t\tesac\n\t\treturn\n\tfi\n\tcase $cmd in\n")
	for _, p := range pages {
		switch {
		case p.takesServices():
			fmt.Fprintf(&b, "\t%q)\n\t\t_hacheck_typed\n\t\t_hacheck_reply \"$(sh -c %s sh \"${typed[@]}\")\"\n\t\t;;\n", p.name, single(p.services()))
		case len(p.subcommands) > 0:
			fmt.Fprintf(&b, "\t%q) ((i < COMP_CWORD)) || _hacheck_reply %q ;;\n", p.name, strings.Join(p.subcommands, " "))
		case p.takesFiles():
			fmt.Fprintf(&b, "\t%q) compopt -o default ;;\n", p.name)
		}
	}
	b.WriteString("\tesac\n}\n\ncomplete -F _hacheck")
	for _, c := range commands {
		b.WriteString(" " + c.name)
	}
	return b.String() + "\n"
}

// single quotes s for a shell.
func single(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func zsh(pages []*page) string {
	var b strings.Builder
	b.WriteString("#compdef")
	for _, c := range commands {
		b.WriteString(" " + c.name)
	}
	b.WriteString("\n# Completion of hacheck's commands for zsh. Written by packaging/generate.\n")
	spec := func(o option) []string {
		text := strings.NewReplacer(`\`, `\\`, "[", `\[`, "]", `\]`, ":", `\:`).Replace(o.text)
		arg := ""
		if o.value != "" {
			action := " "
			switch {
			case o.words() != nil:
				action = "(" + strings.Join(o.words(), " ") + ")"
			case o.value == "DIR":
				action = "_directories"
			case o.isFile():
				action = "_files"
			}
			colon := ":"
			if o.optional {
				colon = "::"
			}
			arg = colon + strings.NewReplacer(":", `\:`, "[", `\[`, "]", `\]`).Replace(o.value) + ":" + action
		}
		long := "--" + o.long
		switch {
		case o.optional:
			long += "=-"
		case o.value != "":
			long += "="
		}
		star := ""
		if o.repeat {
			star = "*"
		}
		specs := []string{single(star + long + "[" + text + "]" + arg)}
		if o.short != "" {
			short := "-" + o.short
			if o.value != "" && !o.optional {
				short += "+"
			}
			specs = append(specs, single(star+short+"["+text+"]"+arg))
		}
		return specs
	}
	for _, p := range pages {
		fmt.Fprintf(&b, "\n_hacheck_%s() {\n", strings.ReplaceAll(p.dashed(), "-", "_"))
		if p.takesServices() {
			fmt.Fprintf(&b, "\tlocal -a services=(${(f)\"$(sh -c %s sh ${(Q)words[1,CURRENT-1]})\"})\n", single(p.services()))
		}
		b.WriteString("\t_arguments -s")
		for _, o := range p.options {
			for _, s := range spec(o) {
				b.WriteString(" \\\n\t\t" + s)
			}
		}
		switch {
		case p.takesServices():
			b.WriteString(" \\\n\t\t'*:service:($services)'")
		case len(p.subcommands) > 0:
			b.WriteString(" \\\n\t\t'1:subcommand:(" + strings.Join(p.subcommands, " ") + ")' \\\n\t\t'*:: :->sub'")
		case p.takesFiles():
			b.WriteString(" \\\n\t\t'*:file:_files'")
		}
		b.WriteString("\n}\n")
	}
	b.WriteString("\n_hacheck() {\n\tlocal cmd=$service i=2\n\twhile true; do\n\t\tcase \"$cmd ${words[i]}\" in\n")
	var subs []string
	for _, p := range pages {
		if strings.Contains(p.name, " ") {
			subs = append(subs, single(p.name))
		}
	}
	fmt.Fprintf(&b, "\t\t%s) (( i < CURRENT )) || break; cmd=\"$cmd ${words[i]}\" ;;\n\t\t*) break ;;\n\t\tesac\n\t\t(( i++ ))\n\tdone\n", strings.Join(subs, "|"))
	b.WriteString("\t(( i > 2 )) && { words=(\"$cmd\" \"${(@)words[i,-1]}\"); (( CURRENT -= i - 2 )) }\n\t_hacheck_${cmd// /_}\n}\n\n_hacheck \"$@\"\n")
	return b.String()
}

// fishQuoted quotes s for fish, where a backslash means something between single quotes.
func fishQuoted(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'"
}

// fish is the script for one command and its subcommands.
func fish(group []*page) string {
	var b strings.Builder
	b.WriteString("# Completion of " + group[0].name + " for fish. Written by packaging/generate.\n")
	for _, p := range group {
		cmd, sub, _ := strings.Cut(p.name, " ")
		var conditions []string
		for w := range strings.FieldsSeq(sub) {
			conditions = append(conditions, "__fish_seen_subcommand_from "+w)
		}
		if len(p.subcommands) > 0 {
			conditions = append(conditions, "not __fish_seen_subcommand_from "+strings.Join(p.subcommands, " "))
		}
		line := "complete -c " + cmd
		if len(conditions) > 0 {
			line += " -n " + fishQuoted(strings.Join(conditions, "; and "))
		}
		b.WriteString("\n")
		if !p.takesFiles() {
			b.WriteString(line + " -f\n")
		}
		for _, o := range p.options {
			l := line + " -l " + o.long
			if o.short != "" {
				l += " -s " + o.short
			}
			switch {
			case o.value == "" || o.optional: // fish knows no value that is optional behind "="
			case o.words() != nil:
				l += " -x -a " + fishQuoted(strings.Join(o.words(), " "))
			case o.isFile():
				l += " -r -F"
			default:
				l += " -x"
			}
			b.WriteString(l + " -d " + fishQuoted(o.text) + "\n")
		}
		switch {
		case p.takesServices():
			b.WriteString(line + " -a " + fishQuoted("(sh -c "+fishQuoted(p.services())+" sh (commandline -opc))") + "\n")
		case len(p.subcommands) > 0:
			b.WriteString(line + " -a " + fishQuoted(strings.Join(p.subcommands, " ")) + "\n")
		}
	}
	return b.String()
}
