package fleet

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"hacheck/internal/spool"
)

// otherServices is the name of the budget of every service without one of its own.
const otherServices = "*"

// ruleDefault is the text of the budget of a service without any.
const ruleDefault = "default"

// parseBudget reads a number of hosts, or a percentage of the members.
func parseBudget(text string) (budget, error) {
	digits, isPercent := strings.CutSuffix(text, "%")
	n, err := strconv.Atoi(digits)
	switch {
	case err != nil || n < 1 || digits[0] == '+':
	case isPercent && n <= 100:
		return budget{V: version, Percent: n}, nil
	case !isPercent && n <= 1_000_000:
		return budget{V: version, Hosts: n}, nil
	}
	return budget{}, &RefusedError{fmt.Sprintf("%q is no budget: write a number of hosts from 1 on, or a percentage from 1%% to 100%%", text)}
}

// rule returns the budget as it was set.
func (b budget) rule() string {
	switch {
	case b.Percent > 0:
		return strconv.Itoa(b.Percent) + "%"
	case b.Hosts > 0:
		return strconv.Itoa(b.Hosts)
	}
	return ruleDefault
}

// limit returns how many of that many members may be out. One of two or more always stays in.
func (b budget) limit(members int) int {
	n := max(b.Hosts, 1)
	if b.Percent > 0 {
		n = max(members*min(b.Percent, 100)/100, 1)
	}
	if members >= 2 {
		n = min(n, members-1)
	}
	return n
}

// budget returns the budget of a service, the zero value if there is none.
func (snap *snapshot) budget(service string) budget {
	if b, ok := snap.budgets[service]; ok {
		return b
	}
	return snap.budgets[otherServices]
}

// limit returns how many members of a service may be out now.
func (snap *snapshot) limit(service string) int {
	return snap.budget(service).limit(len(snap.states[service]))
}

// SetBudget sets how many members of service may be out. See Service.
func (f *Fleet) SetBudget(ctx context.Context, service, text, by string) error {
	if service != otherServices && (!spool.ValidService(service) || service == spool.All) {
		return &RefusedError{fmt.Sprintf("%q is no service; '*' means every service without a budget of its own", service)}
	}
	p := f.permits
	key := p.keys.budget(service)
	op := clientv3.OpDelete(key)
	if text != "" {
		b, err := parseBudget(text)
		if err != nil {
			return err
		}
		b.By, b.At = by, p.now().UTC()
		op = clientv3.OpPut(key, encode(b))
	}
	if _, err := f.conn.commit(ctx, nil, []clientv3.Op{op, p.putGuard("budget " + service)}, nil); err != nil {
		return err
	}
	if text == "" {
		f.o.Log.Info("budget is removed", "service", service, "by", by)
	} else {
		f.o.Log.Info("budget is set", "service", service, "budget", text, "by", by)
	}
	return nil
}
