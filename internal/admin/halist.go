package admin

import "hacheck/internal/textfmt"

// listRecent is halist: it prints the services that the daemon was asked about lately, with its last answer about each.
func (c *command) listRecent() int {
	services, err := c.opt.daemon.recent()
	if err != nil {
		c.errorf("%s", c.unreachableText(err))
		return ExitFailed
	}
	if c.opt.json {
		c.printJSON(map[string]any{"services": services})
		return ExitOK
	}
	for _, s := range services {
		c.printf("%s last_response=%s\n", textfmt.OneLine(s.Service), pythonJSON(s.Last))
	}
	return ExitOK
}
