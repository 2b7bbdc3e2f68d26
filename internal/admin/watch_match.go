package admin

import (
	"hacheck/internal/balancer"
	"hacheck/internal/spool"
)

// concerns says whether an override of k decides what the balancer of a row is told.
func concerns(k spool.Key, row balancer.Balancer) bool {
	switch {
	case k.Service != spool.All && k.Service != row.Service:
		return false
	case k.Port == 0:
		return true
	case k.Port != row.Port:
		return false
	case k.Host == "":
		return row.Local
	}
	return spool.CanonicalHost(k.Host) == spool.CanonicalHost(row.Host)
}

// covers says whether an override of wide is one of narrow as well.
func covers(wide, narrow spool.Key) bool {
	if wide.Service != spool.All && wide.Service != narrow.Service {
		return false
	}
	return wide.Port == 0 || wide.Port == narrow.Port && wide.Host == narrow.Host
}

// above are the keys whose overrides cover a target.
func (t target) above() []spool.Key {
	var keys []spool.Key
	if t.key.Port != 0 {
		keys = append(keys, spool.Key{Service: t.key.Service})
	}
	if t.key.Service != spool.All {
		keys = append(keys, spool.Key{Service: spool.All})
	}
	return keys
}

// about says whether a view is about a target.
func (w *watcher) about(t target, v *view) bool {
	if v.key.agent {
		key, err := spool.ParseKey(v.key.service)
		return err == nil && covers(t.key, key)
	}
	return concerns(t.key, v.row)
}
