package web

import (
	"net/http"

	"hacheck/internal/balancer"
	"hacheck/internal/clients"
)

// statusOnly returns page for the clients that status_allowed names, and for no balancer. A request with
// X-Haproxy-Server-State is a balancer with a wrong check URL: it gets 404, so that no page counts as healthy.
func (s *Server) statusOnly(page http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header[balancer.StateHeader] != nil {
			notFound(w)
			return
		}
		if client := clients.HostPart(r.RemoteAddr); !s.statusAllowed(client) {
			writeText(w, http.StatusForbidden, client+" may not see this: add it to status_allowed in hacheck's configuration")
			return
		}
		page(w, r)
	}
}

func (s *Server) statusAllowed(client string) bool {
	a := clients.AddrOrZero(client)
	return clients.Contains(s.settings.Load().StatusAllowed, a) || s.local.Contains(a)
}

// localOnly returns page for the clients on this machine. To others, a path and an inode of this machine mean nothing.
func (s *Server) localOnly(page http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !s.local.Contains(clients.AddrOrZero(clients.HostPart(r.RemoteAddr))) {
			writeText(w, http.StatusForbidden, "only this machine may see this")
			return
		}
		page(w, r)
	}
}
