// Package devnet is a private tailnet on loopback: a control server, a DERP
// relay and a STUN server in this process, for real nodes to join. No packet of
// it leaves the machine, and it needs no account, no root and no network.
//
// It must survive whatever a client sends, because it runs inside Python: every
// handler and goroutine recovers, every body and wait is bounded.
package devnet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"tailscale.com/derp/derpserver"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
	"tailscale.com/util/dnsname"
)

// Config configures a devnet. The zero value works.
type Config struct {
	// Domain is the suffix of the nodes' DNS names; "" means DefaultDomain.
	Domain string `json:"domain,omitempty"`
	// StateDir keeps the tailnet between runs; "" keeps nothing.
	StateDir string `json:"state_dir,omitempty"`
	// A port given by number must be free. 0 means the port of the last run
	// if it is free, else any.
	ControlPort int `json:"control_port,omitempty"`
	DERPPort    int `json:"derp_port,omitempty"`
	STUNPort    int `json:"stun_port,omitempty"`
	// EphemeralGraceS is how many seconds an ephemeral node may be offline
	// before it is removed; 0 means 5.
	EphemeralGraceS float64 `json:"ephemeral_grace_s,omitempty"`

	Logf logger.Logf      `json:"-"` // nil discards
	Now  func() time.Time `json:"-"` // nil means time.Now

	limits limits // zero fields mean the defaults
}

// DefaultDomain: "test" is reserved (RFC 6761), so it never names a real host.
const DefaultDomain = "dev.tailnet.test"

// loopbackIP is the only address that a devnet listens on.
const loopbackIP = "127.0.0.1"

// Info is where a devnet can be reached.
type Info struct {
	Tailnet     string `json:"tailnet"` // the domain of its nodes
	Domain      string `json:"domain"`
	ControlURL  string `json:"control_url"`
	ControlPort int    `json:"control_port"`
	DERPPort    int    `json:"derp_port"`
	STUNPort    int    `json:"stun_port"`
	StateDir    string `json:"state_dir"`
}

// Devnet is a running private tailnet.
type Devnet struct {
	cfg        Config
	logf       logger.Logf
	now        func() time.Time
	limits     limits
	controlURL string
	noiseKey   key.MachinePrivate
	fixed      state // what never changes in a run: keys, certificate, ports
	derpMap    *tailcfg.DERPMap

	mu  sync.Mutex
	reg *registry

	machineHandler http.Handler
	control, relay *http.Server
	controlGate    *gate
	derpGate       *gate
	derp           *derpserver.Server
	stun           *net.UDPConn
	lock           *os.File // of the state directory; nil without one

	saveMu sync.Mutex    // held while the state is written
	dirty  chan struct{} // one buffered token: the state is to be written

	serving   context.Context // of every request; ends with Stop
	stopServe context.CancelFunc
	stopping  chan struct{}
	stopOnce  sync.Once
	stopped   chan struct{}
	stopErr   error
	inflight  *inflight
}

var errStopped = errors.New("the devnet is stopping")

// Start starts the tailnet and returns when nodes can join. ctx bounds only the
// start.
func Start(ctx context.Context, cfg Config) (_ *Devnet, err error) {
	if err := ctx.Err(); err != nil {
		return nil, fail(CodeTimeout, "start", "%w", err)
	}
	d, err := newDevnet(cfg)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			d.release()
		}
	}()
	if err := d.openState(); err != nil {
		return nil, err
	}
	controlLn, derpLn, err := d.listen()
	if err != nil {
		return nil, err
	}
	if err := d.serve(controlLn, derpLn); err != nil {
		controlLn.Close()
		derpLn.Close()
		return nil, err
	}
	if err := d.save(); err != nil {
		d.Stop(context.WithoutCancel(ctx))
		return nil, err
	}
	return d, nil
}

func newDevnet(cfg Config) (*Devnet, error) {
	if cfg.Domain == "" {
		cfg.Domain = DefaultDomain
	}
	cfg.Domain = strings.ToLower(strings.TrimSuffix(cfg.Domain, "."))
	if err := dnsname.ValidHostname(cfg.Domain); err != nil || len(cfg.Domain) > 180 {
		return nil, fail(CodeBadCommand, "start", "domain %q is not a DNS name of at most 180 characters", cfg.Domain)
	}
	for name, port := range map[string]int{"control_port": cfg.ControlPort, "derp_port": cfg.DERPPort, "stun_port": cfg.STUNPort} {
		if port < 0 || port > 65535 {
			return nil, fail(CodeBadCommand, "start", "%s %d: allowed are 0 to 65535", name, port)
		}
	}
	if cfg.EphemeralGraceS < 0 || cfg.EphemeralGraceS > 86400 {
		return nil, fail(CodeBadCommand, "start", "ephemeral_grace_s %v: allowed are 0 to 86400", cfg.EphemeralGraceS)
	}
	if cfg.EphemeralGraceS == 0 {
		cfg.EphemeralGraceS = 5
	}
	d := &Devnet{
		cfg:         cfg,
		logf:        cfg.Logf,
		now:         cfg.Now,
		limits:      cfg.limits.orDefaults(),
		controlGate: newGate(),
		derpGate:    newGate(),
		inflight:    newInflight(),
		dirty:       make(chan struct{}, 1),
		stopping:    make(chan struct{}),
		stopped:     make(chan struct{}),
	}
	if d.logf == nil {
		d.logf = logger.Discard
	}
	if d.now == nil {
		d.now = time.Now
	}
	d.serving, d.stopServe = context.WithCancel(context.Background())
	return d, nil
}

// openState opens the state directory and creates what is missing there.
func (d *Devnet) openState() (err error) {
	if d.cfg.StateDir != "" {
		if d.lock, err = lockState(d.cfg.StateDir); err != nil {
			return err
		}
	}
	st, err := loadState(d.cfg.StateDir)
	if err != nil {
		return err
	}
	d.reg = st.registry(d.cfg.Domain)
	if st.NoiseKey.IsZero() {
		st.NoiseKey, st.DERPKey = key.NewMachine(), key.NewNode()
	}
	// Renewed a year ahead: nodes learn the new pin with the next map.
	cert, err := loadDERPCert(st.CertDER, st.CertKey)
	if err != nil || cert.Leaf.NotAfter.Before(time.Now().AddDate(1, 0, 0)) {
		if st.CertDER, st.CertKey, err = newDERPCert(time.Now()); err != nil {
			return fail(CodeInternal, "start", "making the DERP certificate: %w", err)
		}
	}
	d.noiseKey = st.NoiseKey
	d.fixed = state{NoiseKey: st.NoiseKey, DERPKey: st.DERPKey, CertDER: st.CertDER, CertKey: st.CertKey, Ports: st.Ports}
	return nil
}

// listen opens the three sockets, on the ports of the last run where they are
// free. On an error none stays open.
func (d *Devnet) listen() (controlLn, derpLn net.Listener, err error) {
	last := d.fixed.Ports
	controlLn, err = listenTCP("control", d.cfg.ControlPort, last.Control)
	if err != nil {
		return nil, nil, err
	}
	derpLn, err = listenTCP("DERP", d.cfg.DERPPort, last.DERP)
	if err != nil {
		controlLn.Close()
		return nil, nil, err
	}
	d.stun, err = listenUDP(d.cfg.STUNPort, last.STUN)
	if err != nil {
		controlLn.Close()
		derpLn.Close()
		return nil, nil, err
	}
	d.fixed.Ports = ports{
		Control: controlLn.Addr().(*net.TCPAddr).Port,
		DERP:    derpLn.Addr().(*net.TCPAddr).Port,
		STUN:    d.stun.LocalAddr().(*net.UDPAddr).Port,
	}
	d.controlURL = fmt.Sprintf("http://%s:%d", loopbackIP, d.fixed.Ports.Control)
	return controlLn, derpLn, nil
}

func listenTCP(what string, asked, last int) (net.Listener, error) {
	return listenPort(what, asked, last, func(port int) (net.Listener, error) {
		return net.Listen("tcp4", fmt.Sprintf("%s:%d", loopbackIP, port))
	})
}

func listenUDP(asked, last int) (*net.UDPConn, error) {
	return listenPort("STUN", asked, last, func(port int) (*net.UDPConn, error) {
		return net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	})
}

// listenPort listens on the port asked for, or fails; the port of the last run is
// only preferred.
func listenPort[L any](what string, asked, last int, listen func(port int) (L, error)) (L, error) {
	if asked == 0 && last != 0 {
		if l, err := listen(last); err == nil {
			return l, nil
		}
	}
	l, err := listen(asked)
	if errors.Is(err, syscall.EADDRINUSE) {
		return l, fail(CodeAddressInUse, "start", "port %d for %s is in use", asked, what)
	} else if err != nil {
		return l, fail(CodeInternal, "start", "listening for %s: %w", what, err)
	}
	return l, nil
}

// serve starts the servers on their sockets.
func (d *Devnet) serve(controlLn, derpLn net.Listener) error {
	cert, err := loadDERPCert(d.fixed.CertDER, d.fixed.CertKey)
	if err != nil {
		return fail(CodeInternal, "start", "loading the DERP certificate: %w", err)
	}
	d.derp = derpserver.New(d.fixed.DERPKey, d.logf)
	d.derpMap = newDERPMap(d.fixed.CertDER, d.fixed.Ports.DERP, d.fixed.Ports.STUN)
	d.machineHandler = d.newMachineHandler()
	d.control = d.newControlServer()
	d.relay = d.newDERPServer()

	controlLn = &gatedListener{Listener: controlLn, gate: d.controlGate}
	derpLn = tls.NewListener(&gatedListener{Listener: derpLn, gate: d.derpGate}, d.derpTLS(cert))
	d.goGuarded("control", func() { d.logUnexpected("control", d.control.Serve(controlLn)) })
	d.goGuarded("DERP", func() { d.logUnexpected("DERP", d.relay.Serve(derpLn)) })
	d.goGuarded("STUN", func() { d.logUnexpected("STUN", serveSTUN(d.stun)) })
	d.goGuarded("saving the state", d.saveLoop)
	return nil
}

// logUnexpected logs why a server ended, unless Stop ended it.
func (d *Devnet) logUnexpected(what string, err error) {
	select {
	case <-d.stopping:
	default:
		d.logf("devnet: %s ended: %v", what, err)
	}
}

// Info reports where the devnet can be reached.
func (d *Devnet) Info() Info {
	return Info{
		Tailnet:     d.cfg.Domain,
		Domain:      d.cfg.Domain,
		ControlURL:  d.controlURL,
		ControlPort: d.fixed.Ports.Control,
		DERPPort:    d.fixed.Ports.DERP,
		STUNPort:    d.fixed.Ports.STUN,
		StateDir:    d.cfg.StateDir,
	}
}

// Stop ends the tailnet: sockets closed, every goroutine ended, the state
// written. It may be called any number of times; each call waits for the end, at
// most until ctx ends.
func (d *Devnet) Stop(ctx context.Context) error {
	d.stopOnce.Do(func() {
		close(d.stopping)
		go func() {
			defer close(d.stopped)
			defer d.logPanic("stop")
			d.stopErr = d.shutdown()
		}()
	})
	select {
	case <-d.stopped:
		return d.stopErr
	case <-ctx.Done():
		return fail(CodeTimeout, "stop", "%w", ctx.Err())
	}
}

// shutdown ends everything, then waits for requests in flight. The gates come
// first: http.Server.Close waits for an Accept that waits at a paused gate. They
// also close the hijacked connections, which http.Server.Close leaves alone.
func (d *Devnet) shutdown() error {
	d.stopServe()
	d.controlGate.shut()
	d.derpGate.shut()
	d.control.Close()
	d.relay.Close()
	d.stun.Close()
	d.derp.Close()
	d.inflight.closeAndWait()
	err := d.save()
	d.release()
	return err
}

// release releases what is held outside the servers.
func (d *Devnet) release() {
	d.stopServe()
	if d.stun != nil {
		d.stun.Close()
	}
	if d.lock != nil {
		d.lock.Close()
	}
}
