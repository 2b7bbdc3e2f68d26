// Package admin is what haup, hadown, hastatus, halist and hashowdowned share: one program that acts
// as the command it was called as.
//
// The commands work on the spool directory and need no daemon; halist, the overview of hastatus, --wait and
// --safe ask one for what it knows, and the others ask whether it reads the same directory. They are started from scripts, many times over, so nothing heavy is linked:
// the daemon is asked with a bounded HTTP/1.0 GET of our own, and options are read by pflag alone.
// cobra would add a third to the start-up cost and three words ("help", "completion", "__complete")
// that could be taken for its subcommands instead of the services an operator means.
//
// What --json prints is one document on one line. An override, here O, is an object of "service",
// "host" and "port" (of an instance), "state" (up, force-up, drain, down, maint, unknown), "reason",
// "creation" and "expiration" (unix seconds), each left out when there is none:
//
//	haup, hadown  {"action": "down", "services": [O...]}            a failed one has "error" besides;
//	              when --safe refuses, "services" is empty and "error" says why
//	hastatus SVC  {"services": [O...], "covering": [O...]}          covering: what is down above them
//	hastatus      {"spool_root", "overrides": [O...], "daemon", "services": [S...],
//	              "balancers", "agents" as in /balancers}
//	              and "spool_error", "daemon_error" or "balancers_error" for what could not be asked
//	hashowdowned  {"overrides": [O...]}
//	halist        {"services": [S...]}                              S: {"service", "last_response"}
//
// With --wait, haup and hadown print one event a line instead. Each has "event" and "after", seconds since
// the command began:
//
//	written       "action" and "services" as above; --maint writes twice, the drain first
//	balancer      something has changed: "status" (waiting, done, silent: since before and not waited for,
//	              lost: silent since, and too long), "service", "port", "address", "node", "server", "url",
//	              "state", "sessions", "queued" (null when not known), and all that in words in "text"
//	note          "text": what is no balancer's, such as a daemon that is being started anew
//	end           "result" (out, up, time is up, lost, interrupted, not known, overtaken, refused, failed),
//	              "exit" (the exit code), "open" (names of the balancers that have not followed), "text"
package admin
