package daemon

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"hacheck/internal/config"
)

// reloadCounters count the reloads of the configuration for the metrics.
type reloadCounters struct {
	done, failed atomic.Uint64
	last         atomic.Int64 // when the configuration in force was loaded, in Unix milliseconds
}

// loadConfig reads the configuration file; path "" is none.
func loadConfig(path string) (*config.Config, []config.Warning, error) {
	if path == "" {
		return config.Default(), nil, nil
	}
	return config.Load(path)
}

// checkConfig is --check-config. It returns warnings as errors, although the daemon starts with them.
func checkConfig(o *options, stdout io.Writer) error {
	if o.configFile == "" {
		return &usageError{errors.New("option --check-config needs a configuration file: -c FILE")}
	}
	c, warnings, err := config.Load(o.configFile)
	if err != nil || len(warnings) > 0 {
		return joinConfigErrors(warnings, err)
	}
	if _, err := readCertificate(o.configFile, c); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s: ok\n", o.configFile)
	return err
}

// checkReload is --check-reload. It returns an error if a reload would fail because of the file, its log_path or its
// rlimit_nofile, and prints warnings, with which a reload succeeds. A certificate that cannot be read is an error too,
// although a reload keeps the old one if the configuration names the same files as before. checkReload cannot know
// whether the ports of services are in use: the running daemon has some of them.
//
// The process must exit afterwards, because checkReload changes its limit of open files.
func checkReload(o *options, stderr io.Writer) error {
	if o.configFile == "" {
		return nil // a reload only reopens the log
	}
	c, warnings, err := config.Load(o.configFile)
	if err != nil {
		return joinConfigErrors(warnings, err)
	}
	for _, w := range warnings {
		printWarning(stderr, w.String())
	}
	file, err := openLog(c.LogPath)
	if err != nil {
		return &configError{fmt.Errorf("%s: %w", o.configFile, err)}
	}
	file.close()
	if _, err := readCertificate(o.configFile, c); err != nil {
		return err
	}
	if _, err := setNoFile(c.RlimitNoFile); err != nil {
		return &configError{fmt.Errorf("%s: %w", o.configFile, err)}
	}
	return nil
}

// joinConfigErrors returns one error with a line for each warning and error about a configuration file.
func joinConfigErrors(warnings []config.Warning, err error) error {
	var lines []string
	for _, w := range warnings {
		lines = append(lines, w.String())
	}
	if err != nil {
		lines = append(lines, err.Error())
	}
	return &configError{errors.New(strings.Join(lines, "\n"))}
}

func (d *daemon) warnAboutConfig(warnings []config.Warning) {
	for _, w := range warnings {
		d.log.Warn("the configuration has a key that means nothing", "where", w.String())
	}
}

// reloadUnlessStopped reloads and returns nil. If a signal to stop arrives first, it returns the signal and does not
// wait for the reload: a file server may hang.
func (d *daemon) reloadUnlessStopped(stop <-chan os.Signal) os.Signal {
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.reload()
	}()
	select {
	case <-done:
		return nil
	case s := <-stop:
		return s
	}
}

// reload reads the configuration file again and reopens the log file. The new configuration is in force as a whole
// for the requests that come from now on, or not at all.
func (d *daemon) reload() {
	d.logNotifyError(d.manager.Reloading())
	d.logs.reopen()
	var warnings []config.Warning
	var err error
	if d.opts.configFile != "" {
		warnings, err = d.reloadConfig()
	}
	d.warnAboutConfig(warnings)
	status := "Reloaded the configuration at " + time.Now().Format(time.DateTime)
	if err != nil {
		status = "The configuration was not reloaded, the old one stays in force: " + err.Error()
	}
	d.logNotifyError(d.manager.Ready(status))
	switch {
	case err != nil:
		d.reloads.failed.Add(1)
		d.log.Error("the configuration was not reloaded, the old one stays in force",
			"config", d.opts.configFile, "err", strings.ReplaceAll(err.Error(), "\n", "; "))
	case d.opts.configFile == "":
		d.log.Info("reopened the log; there is no configuration file to reload")
	default:
		d.reloads.done.Add(1)
		d.reloads.last.Store(time.Now().UnixMilli())
		d.log.Info("reloaded the configuration", "config", d.opts.configFile)
		d.warnAboutPermissions(d.config.Load())
	}
}

func (d *daemon) reloadConfig() ([]config.Warning, error) {
	c, warnings, err := config.Load(d.opts.configFile)
	if err == nil {
		err = d.apply(c)
	}
	return warnings, err
}

// apply puts c in force. The steps that can fail come first; apply undoes them if one of them fails.
func (d *daemon) apply(c *config.Config) error {
	pair, err := d.reloadCertificate(c)
	if err != nil {
		return err
	}
	endpoints, err := d.services.Load().prepare(c)
	if err != nil {
		return err
	}
	var file *logFile
	if c.LogPath != d.config.Load().LogPath {
		if file, err = openLog(c.LogPath); err != nil {
			endpoints.rollback()
			return err
		}
	}
	restoreNoFile, err := setNoFile(c.RlimitNoFile)
	if err != nil {
		endpoints.rollback()
		file.close()
		return err
	}
	if err := d.applyFleet(c); err != nil {
		restoreNoFile()
		endpoints.rollback()
		file.close()
		return err
	}
	d.conns.SetBounds(connBounds())
	d.logs.apply(file, c.LogFormat)
	d.http.deadline.setCheckTimeout(c.HealthcheckTimeout, d.http.Server)
	settings := d.proxySettings(c)
	d.evaluators.replace(settings.Evaluator)
	d.proxy.SetSettings(settings)
	d.web.SetSettings(d.webSettings(c, settings.Evaluator))
	d.useCertificate(pair)
	endpoints.commit()
	d.config.Store(c)
	d.warnAboutSockets(c)
	return nil
}
