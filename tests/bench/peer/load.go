package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"tailscale.com/tsnet"
)

// slowMS is the latency above which a SYN was probably lost: it is resent after a second.
const slowMS = 900

// order is one line from the benchmark: which requests to send to which node.
type order struct {
	Op          string  `json:"op"`          // "run"; "first": ask until the first token
	Peer        string  `json:"peer"`        // short name of the node to ask
	Port        uint16  `json:"port"`        //
	Connections int     `json:"connections"` // at once; each asks one request after the other
	Requests    int64   `json:"requests"`    // in all; 0: as many as fit into Seconds
	Seconds     float64 `json:"seconds"`     // at most; 0: no limit
	Fresh       bool    `json:"fresh"`       // a new connection for each request
	ServerEnds  bool    `json:"server_ends"` // with Fresh: the server closes it, else we do
	TimeoutS    float64 `json:"timeout_s"`   // of one request, its connection included
	BucketS     float64 `json:"bucket_s"`    // also count answers in slices of this length; 0: do not
}

// report is the answer to an order. Latencies are in milliseconds and include connecting if each
// request has its own connection.
type report struct {
	Requests int64            `json:"requests"` // answered with a token
	Failed   int64            `json:"failed"`
	Errors   map[string]int64 `json:"errors"` // what failed, and how often
	Seconds  float64          `json:"seconds"`
	P50      float64          `json:"p50_ms"`
	P90      float64          `json:"p90_ms"`
	P99      float64          `json:"p99_ms"`
	Max      float64          `json:"max_ms"`
	Slow     int64            `json:"slow"` // took longer than slowMS
	Buckets  []int64          `json:"buckets"`
	Began    float64          `json:"began"` // Unix time, seconds
	Ended    float64          `json:"ended"`
	Error    string           `json:"error"` // why the order failed
}

// load joins the tailnet and executes the orders from standard input, one after
// the other, until its end.
func load(cfg joinConfig) error {
	node, err := join(cfg)
	if err != nil {
		return err
	}
	if err := say(map[string]bool{"ready": true}); err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		o := order{Port: 80, Connections: 1, TimeoutS: 10}
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			return fmt.Errorf("order: %w", err)
		}
		r, err := carryOut(node, o)
		if err != nil {
			r = &report{Error: err.Error()}
		}
		if err := say(r); err != nil {
			return err
		}
	}
	return lines.Err()
}

func carryOut(node *tsnet.Server, o order) (*report, error) {
	ctx, cancel := context.WithTimeout(context.Background(), joinLimit)
	defer cancel()
	addr, err := awaitPeer(ctx, node, o.Peer)
	if err != nil {
		return nil, err
	}
	r := newTrial(node, netip.AddrPortFrom(addr, o.Port), o)
	switch o.Op {
	case "run":
		if err := awaitDirect(ctx, node, addr); err != nil {
			return nil, err
		}
		return r.all(), nil
	case "first":
		return r.first(ctx)
	}
	return nil, fmt.Errorf("unknown op %q: allowed are run and first", o.Op)
}

// trial is one order in progress.
type trial struct {
	node    *tsnet.Server
	order   order
	target  string
	request []byte
	timeout time.Duration

	began  time.Time
	end    time.Time // zero: no limit
	issued atomic.Int64
}

func newTrial(node *tsnet.Server, target netip.AddrPort, o order) *trial {
	head := "POST /issue HTTP/1.1\r\nHost: " + target.Addr().String() + "\r\nContent-Length: 0\r\n"
	if o.Fresh && o.ServerEnds {
		head += "Connection: close\r\n"
	}
	return &trial{
		node:    node,
		order:   o,
		target:  target.String(),
		request: []byte(head + "\r\n"),
		timeout: seconds(o.TimeoutS),
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// worker is one connection at a time, and its results.
type worker struct {
	trial     *trial
	conn      net.Conn
	reader    *bufio.Reader
	latencies []float64 // milliseconds
	buckets   []int64
	errors    map[string]int64
}

// all runs the order to its end.
func (r *trial) all() *report {
	workers := make([]*worker, r.order.Connections)
	r.began = time.Now()
	if r.order.Seconds > 0 {
		r.end = r.began.Add(seconds(r.order.Seconds))
	}
	var group sync.WaitGroup
	for i := range workers {
		w := &worker{trial: r, errors: make(map[string]int64)}
		workers[i] = w
		group.Go(w.work)
	}
	group.Wait()
	return r.report(workers)
}

// more reports whether to send another request, and counts it.
func (r *trial) more() bool {
	if !r.end.IsZero() && !time.Now().Before(r.end) {
		return false
	}
	return r.issued.Add(1) <= r.order.Requests || r.order.Requests == 0
}

func (w *worker) work() {
	defer w.drop()
	for w.trial.more() {
		began := time.Now()
		if err := w.ask(began.Add(w.trial.timeout)); err != nil {
			w.errors[reason(err)]++
			w.drop()
			continue
		}
		now := time.Now()
		w.latencies = append(w.latencies, float64(now.Sub(began).Microseconds())/1000)
		w.count(now)
	}
}

func (w *worker) count(now time.Time) {
	if w.trial.order.BucketS <= 0 {
		return
	}
	i := int(now.Sub(w.trial.began) / seconds(w.trial.order.BucketS))
	for len(w.buckets) <= i {
		w.buckets = append(w.buckets, 0)
	}
	w.buckets[i]++
}

// ask gets one token.
func (w *worker) ask(deadline time.Time) error {
	if w.conn == nil {
		if err := w.dial(deadline); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
	}
	if err := w.conn.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := w.conn.Write(w.trial.request); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if err := w.readToken(); err != nil {
		return err
	}
	if !w.trial.order.Fresh {
		return nil
	}
	if w.trial.order.ServerEnds {
		if _, err := w.reader.ReadByte(); err != io.EOF {
			return fmt.Errorf("the server did not close: %v", err)
		}
	}
	w.drop()
	return nil
}

func (w *worker) dial(deadline time.Time) error {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	conn, err := w.trial.node.Dial(ctx, "tcp", w.trial.target)
	if err != nil {
		return err
	}
	w.conn, w.reader = conn, bufio.NewReader(conn)
	return nil
}

func (w *worker) drop() {
	if w.conn != nil {
		w.conn.Close()
		w.conn = nil
	}
}

var errNoToken = errors.New("200 without a token")

func (w *worker) readToken() error {
	res, err := http.ReadResponse(w.reader, nil)
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return errors.New("status " + strconv.Itoa(res.StatusCode))
	}
	if !bytes.HasPrefix(body, []byte(`{"token":"ey`)) {
		return errNoToken
	}
	return nil
}

// first retries until it gets a token. The server must be up: a handshake or ping
// without an answer is repeated only after 5 s.
func (r *trial) first(ctx context.Context) (*report, error) {
	w := &worker{trial: r, errors: make(map[string]int64)}
	defer w.drop()
	r.began = time.Now()
	for {
		began := time.Now()
		err := w.ask(began.Add(r.timeout))
		if err == nil {
			w.latencies = []float64{float64(time.Since(began).Microseconds()) / 1000}
			return r.report([]*worker{w}), nil
		}
		w.errors[reason(err)]++
		w.drop()
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("no token: %w (%v)", err, w.errors)
		case <-time.After(pollEvery):
		}
	}
}

func (r *trial) report(workers []*worker) *report {
	ended := time.Now()
	out := &report{
		Errors:  make(map[string]int64),
		Seconds: ended.Sub(r.began).Seconds(),
		Began:   float64(r.began.UnixMicro()) / 1e6,
		Ended:   float64(ended.UnixMicro()) / 1e6,
		Buckets: []int64{},
	}
	var latencies []float64
	for _, w := range workers {
		latencies = append(latencies, w.latencies...)
		for what, times := range w.errors {
			out.Errors[what] += times
			out.Failed += times
		}
		for i, n := range w.buckets {
			for len(out.Buckets) <= i {
				out.Buckets = append(out.Buckets, 0)
			}
			out.Buckets[i] += n
		}
	}
	slices.Sort(latencies)
	out.Requests = int64(len(latencies))
	out.P50, out.P90 = quantile(latencies, 0.5), quantile(latencies, 0.9)
	out.P99, out.Max = quantile(latencies, 0.99), quantile(latencies, 1)
	for _, ms := range latencies {
		if ms > slowMS {
			out.Slow++
		}
	}
	return out
}

func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}

// reason is an error without the parts that vary.
func reason(err error) string {
	var netErr net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
		(errors.As(err, &netErr) && netErr.Timeout()) {
		step, _, _ := bytes.Cut([]byte(err.Error()), []byte(":"))
		return string(step) + ": timed out"
	}
	var opErr *net.OpError
	if errors.As(err, &opErr) {
		return opErr.Op + ": " + opErr.Err.Error()
	}
	return err.Error()
}
