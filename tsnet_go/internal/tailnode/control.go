package tailnode

import (
	"context"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/tailbone/tailbone/tsnet_go/internal/events"
	"github.com/tailbone/tailbone/tsnet_go/internal/redact"
)

// defaultControlURL is the control server of a node that names none, as in tsnet.
const defaultControlURL = "https://controlplane.tailscale.com"

const (
	probeTimeout     = 2 * time.Second
	probeInterval    = 5 * time.Second // while the control server answers
	minProbeInterval = 50 * time.Millisecond
)

// Values of join.control.
const (
	controlUnknown int32 = iota
	controlUnreachable
	controlReachable
)

// nodeDeletedPrefix begins the error of a map poll that the control server answers
// with 404, as it does for a deleted node. The error has no type, and appears only in
// tailscale's log.
const nodeDeletedPrefix = "PollNetMap: initial fetch failed 404"

// logf passes on a line of tailscale's log, and sends an event for a deleted node.
func (n *Node) logf(format string, args ...any) {
	if len(args) == 1 {
		if err, ok := args[0].(error); ok && strings.HasPrefix(err.Error(), nodeDeletedPrefix) {
			n.events.Send(events.Event{Type: "node_deleted"})
		}
	}
	n.events.Logf(format, args...)
}

func (n *Node) controlURL() string {
	url := n.config.ControlURL
	if url == "" {
		url = os.Getenv("TS_CONTROL_URL") // as in tsnet
	}
	if url == "" {
		url = defaultControlURL
	}
	return strings.TrimSuffix(url, "/")
}

// watchControl probes the control server while the node joins. When it answers again
// after an outage, watchControl makes tailscale retry the login, whose own backoff
// grows up to 30 s.
func (j *join) watchControl() {
	defer j.node.events.Recover()
	retry := max(time.Duration(j.node.config.RetryMS)*time.Millisecond, minProbeInterval)
	answers := 0 // since the end of an outage, plus one; 0 if there is no login to retry
	for {
		failure := j.node.probeControl(j.ctx)
		if j.ctx.Err() != nil {
			return
		}
		pause := retry
		switch {
		case failure != nil:
			j.controlFailure.Store(&failure)
			if j.control.Swap(controlUnreachable) != controlUnreachable {
				j.node.events.Send(events.Event{
					Type: "control_unreachable", URL: j.node.controlURL(), Line: redact.Text(failure.Error()),
				})
			}
			answers = 1
		case answers > 0 && !j.needsPerson.Load():
			j.control.Store(controlReachable)
			answers = j.retryAfterOutage(answers)
		default:
			j.control.Store(controlReachable)
			pause = max(retry, probeInterval)
		}
		select {
		case <-j.ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// retryAfterOutage retries the login once the control server answers again, and
// returns the new value of answers. A login that is known to have failed is retried at
// once. One that may be in progress gets until the second answer: interrupting a login
// that the server is about to grant would use up a one-time key.
func (j *join) retryAfterOutage(answers int) int {
	switch {
	case !j.node.isStarted():
		return answers
	case j.node.loginFailed(), answers > 1 && !j.node.inMapPoll():
		j.node.retryLogin()
		return 0
	case answers > 1:
		return 0
	default:
		return answers + 1
	}
}

// probeControl requests the control server's public key, as every node does first. It
// returns why there was no answer.
func (n *Node) probeControl(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, n.controlURL()+"/key?v=1", nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 1<<16))
	return nil
}
