// Package admin is what haup, hadown, hastatus, halist and hashowdowned share: one program that acts
// as the command it was called as.
//
// The commands work on the spool directory and need no daemon; only halist and the overview of
// hastatus ask one. They are started from scripts, many times over, so nothing heavy is linked:
// the daemon is asked with a bounded HTTP/1.0 GET of our own, and options are read by pflag alone.
// cobra would add a third to the start-up cost and three words ("help", "completion", "__complete")
// that could be taken for its subcommands instead of the services an operator means.
//
// What --json prints is one document on one line. An override, here O, is an object of "service",
// "host" and "port" (of an instance), "state" (up, force-up, drain, down, maint, unknown), "reason",
// "creation" and "expiration" (unix seconds), each left out when there is none:
//
//	haup, hadown  {"action": "down", "services": [O...]}            a failed one has "error" besides
//	hastatus SVC  {"services": [O...], "covering": [O...]}          covering: what is down above them
//	hastatus      {"spool_root", "overrides": [O...], "daemon", "services": [S...]}
//	              and "spool_error" or "daemon_error" for what could not be asked
//	hashowdowned  {"overrides": [O...]}
//	halist        {"services": [S...]}                              S: {"service", "last_response"}
package admin
