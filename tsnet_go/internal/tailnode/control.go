package main

import (
	"context"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// defaultControl answers for a node that names no control server, as in tsnet.
const defaultControl = "https://controlplane.tailscale.com"

const (
	controlAsk    = 2 * time.Second // for one answer
	controlCalm   = 5 * time.Second // between questions while it answers
	leastInterval = 50 * time.Millisecond
)

// What join.control says.
const (
	controlUnasked int32 = iota
	controlAway
	controlAnswered
)

func (n *Node) controlURL() string {
	url := n.config.ControlURL
	if url == "" {
		url = os.Getenv("TS_CONTROL_URL") // as in tsnet
	}
	if url == "" {
		url = defaultControl
	}
	return strings.TrimSuffix(url, "/")
}

// watchControl notices that a control server that was away has come back, and
// makes the node try again then: tailscale's own pauses grow up to 30 s.
func (j *join) watchControl() {
	defer recoverGoroutine(j.node.events)
	retry := max(time.Duration(j.node.config.RetryMS)*time.Millisecond, leastInterval)
	owed := 0 // how many answers there were since the server came back
	for {
		failure := j.node.askControl(j.ctx)
		if j.ctx.Err() != nil {
			return
		}
		pause := retry
		switch {
		case failure != nil:
			j.controlFailure.Store(&failure)
			if j.control.Swap(controlAway) != controlAway {
				j.node.events.send(event{
					Type: "control_unreachable", URL: j.node.controlURL(), Line: redact(failure.Error()),
				})
			}
			owed = 1
		case owed > 0 && !j.waits.Load():
			j.control.Store(controlAnswered)
			owed = j.settle(owed)
		default:
			j.control.Store(controlAnswered)
			pause = max(retry, controlCalm)
		}
		select {
		case <-j.ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// settle repeats the login for a server that has come back, and returns what is
// still owed. An attempt that is known to have failed is repeated at once. One that
// may be under way gets until the second answer: to break off an attempt that the
// server is just granting would use up a key that counts once.
func (j *join) settle(owed int) int {
	switch {
	case !j.node.isStarted():
		return owed
	case j.node.loginFailed(), owed > 1 && !j.node.inMapPoll():
		j.node.retryLogin()
		return 0
	case owed > 1:
		return 0
	default:
		return owed + 1
	}
}

// askControl asks the control server for its public key, as every node does first.
// The error says why there was no answer.
func (n *Node) askControl(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, controlAsk)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, n.controlURL()+"/key?v=1", nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 1<<16))
	return nil
}
