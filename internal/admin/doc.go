// Package admin implements haup, hadown, hastatus, halist and hashowdowned: one program that acts as the command it is
// called as.
//
// The commands work on the spool directory and need no daemon. halist, the overview of hastatus, --wait and --safe ask
// the daemon for what it knows. The others ask whether it reads the same directory. In a fleet the daemon does what
// needs etcd: --safe, --group, --host, --fleet and `hacheck fleet` are requests to its control socket. Scripts start the commands many
// times over, so they link nothing heavy: a bounded HTTP/1.0 GET of our own instead of net/http, and pflag without cobra.
// cobra would add a third to the start time, and the words "help", "completion" and "__complete" would be subcommands
// instead of services.
//
// --json prints one document on one line. O stands for an object of "service", "host" and "port" (of an instance),
// "state" (up, force-up, drain, down, maint, unknown), "reason", "by" (who has set it), "scope" (of an override of the
// fleet), "creation" and "expiration" (unix seconds). A field without a value is left out.
//
//	haup, hadown  {"action": "down", "services": [O...]}            O of a failed one also has "error";
//	              "weight" (percent) after haup --weight; "ended_weight" that haup has ended;
//	              if --safe or --weight refuses, "services" is empty and "error" has the reason
//	hastatus SVC  {"services": [O...], "covering": [O...]}          covering: wider overrides that take SVC out
//	              and "weights": [W...], W: "service", "host", "port", "weight" (percent), "by", "creation", "expiration"
//	hastatus      {"spool_root", "overrides": [O...], "weights": [W...], "daemon", "services": [S...],
//	              "balancers", "agents" as in /balancers}
//	              and "spool_error", "daemon_error" or "balancers_error" for what could not be asked
//	haup, hadown  with --group, --host or --fleet: {"action", "scopes", "services": [O...], "impact": [...],
//	              "missing", "absent", "left", "unknown", "still_down", "error"}: report.Impact and report.Outcome;
//	              "services" is empty if nothing was changed
//	hastatus      with --fleet, --group or --host: report.Fleet
//	hashowdowned  {"overrides": [O...]}
//	halist        {"services": [S...]}                              S: {"service", "last_response"}
//
// With --wait, haup and hadown print one event per line. Each has "event" and "after", seconds since the command began:
//
//	written       "action" and "services" as above; --maint writes twice, the drain first; for many hosts the
//	              whole document
//	balancer      something has changed: "status" (waiting, done, silent: has not asked since before the command and
//	              is not waited for, lost: silent for too long), "service", "port", "address", "node", "server",
//	              "url", "state", "sessions", "queued" (null if not known), and all of that as a sentence in "text"
//	note          "text": not about one balancer, such as a restart of the daemon or the progress of a fleet
//	end           "result" (out, up, time is up, lost, interrupted, not known, overtaken, refused, failed, held: the
//	              override is lifted, but something else keeps a host down),
//	              "exit" (the exit code), "open" (names of the balancers that have not followed), "text"
package admin
