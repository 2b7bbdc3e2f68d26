package check

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"hacheck/internal/textfmt"
)

// newRedisInfo returns the check of the URL protocols redis-info and sentinel-info, as in uber's hacheck. It returns
// INFO as one flat JSON object of strings, in the server's order. With the path /match?field=value it passes if any of
// the fields has its value, else it returns 500: /match?role=master selects the masters. A Sentinel has the additional
// field redis_master, the address of the last master in its list.
func newRedisInfo(o Options) Func {
	c := &redisClient{username: o.RedisUsername, password: o.RedisPassword, setting: "redis_password"}
	return func(ctx context.Context, t Target) Result {
		return ask(ctx, t, func(x *exchange) Result {
			reply, r, ok := c.send(x, bufio.NewReaderSize(x.conn, maxRedisLine), "INFO")
			if !ok {
				return r
			}
			if reply.kind != '$' {
				return x.unexpectedRedisReply("INFO", reply)
			}
			info := parseRedisInfo(reply.text)
			if len(info) == 0 {
				return x.protocolError("Sent INFO, got back no fields from %s", x.addr())
			}
			if query, ok := matchQuery(t.URI); ok {
				return x.matchRedisInfo(info, query)
			}
			return Result{Code: 200, Body: encodeRedisInfo(info, MaxBody), ContentType: "application/json"}
		})
	}
}

// matchQuery returns the query of /match?field=value. It returns false for any other URI.
func matchQuery(uri string) (query string, ok bool) {
	path, query, _ := strings.Cut(uri, "?")
	return query, strings.Trim(path, "/") == "match"
}

// canonicalRedisInfo implements Protocol.Canonical: no header reaches the server, and all URIs but /match are equivalent.
func canonicalRedisInfo(t Target) Target {
	t.Header = nil
	if _, ok := matchQuery(t.URI); !ok {
		t.URI = "/"
	}
	return t
}

// redisInfoField is a field of INFO.
type redisInfoField struct{ name, value string }

// parseRedisInfo parses the lines "name:value" of INFO. It skips headings and empty lines. The last value of a repeated
// name counts.
func parseRedisInfo(text []byte) []redisInfoField {
	var info []redisInfoField
	index := map[string]int{}
	set := func(name, value string) {
		if i, ok := index[name]; ok {
			info[i].value = value
			return
		}
		index[name] = len(info)
		info = append(info, redisInfoField{name, value})
	}
	for line := range bytes.Lines(text) {
		name, value, ok := strings.Cut(string(bytes.TrimSpace(line)), ":")
		if !ok || name == "" || name[0] == '#' {
			continue
		}
		set(name, value)
		// master0:name=main,status=ok,address=10.0.0.1:6379,slaves=1,sentinels=3
		if master, ok := strings.CutPrefix(name, "master"); ok && master != "" && isDigit(master[0]) {
			for part := range strings.SplitSeq(value, ",") {
				if address, ok := strings.CutPrefix(part, "address="); ok {
					set("redis_master", address)
				}
			}
		}
	}
	return info
}

// encodeRedisInfo returns the fields as a JSON object of at most limit bytes. It omits the fields that do not fit.
func encodeRedisInfo(info []redisInfoField, limit int) []byte {
	out := []byte{'{'}
	for _, f := range info {
		name, _ := json.Marshal(f.name) // a string has no error
		value, _ := json.Marshal(f.value)
		name, value = textfmt.EscapeJSON(name), textfmt.EscapeJSON(value)
		if len(out)+len(`, `)+len(name)+len(`: `)+len(value)+len(`}`) > limit {
			break
		}
		if len(out) > 1 {
			out = append(out, ", "...)
		}
		out = append(out, name...)
		out = append(out, ": "...)
		out = append(out, value...)
	}
	return append(out, '}')
}

// matchRedisInfo returns the result for /match.
func (x *exchange) matchRedisInfo(info []redisInfoField, query string) Result {
	want, _ := url.ParseQuery(query) // the valid pairs of a partly invalid query count
	if len(want) == 0 {
		return result(500, ReasonConfig, fmt.Errorf("match: no field in query %q", query), "match needs a field and a value: /match?role=master")
	}
	for _, f := range info {
		for _, value := range want[f.name] {
			if value == f.value {
				return Result{Code: 200, Body: fmt.Appendf(nil, "Match found: field %s, value %s", excerpt(f.name, 200), excerpt(value, 200))}
			}
		}
	}
	return x.serviceError(500, "No matching field found")
}
