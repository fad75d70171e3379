package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/tailbone/tailbone/tsnet_go/loopback"
	"tailscale.com/envknob"
	"tailscale.com/ipn/ipnstate"
	"tailscale.com/tailcfg"
	"tailscale.com/tsnet"
)

const (
	joinLimit = 30 * time.Second
	// The polling interval for a peer or a token, well below what is measured.
	pollEvery = 2 * time.Millisecond
)

type joinConfig struct {
	controlURL, dir, hostname, authKey string
}

// join joins a node to the private tailnet. It is never closed: it ends with its
// process, and the tailnet ends with the benchmark.
func join(cfg joinConfig) (*tsnet.Server, error) {
	if cfg.controlURL == "" || cfg.dir == "" || cfg.hostname == "" || cfg.authKey == "" {
		return nil, errors.New("-control, -dir, -hostname and PEER_AUTHKEY are needed")
	}
	loopback.Prepare()
	// A node that falls back to the real control server must fail.
	envknob.Setenv("TS_PANIC_IF_HIT_MAIN_CONTROL", "1")
	envknob.Setenv("TS_LOGS_DIR", cfg.dir)
	discard := func(string, ...any) {}
	node := &tsnet.Server{
		Dir:        cfg.dir,
		Hostname:   cfg.hostname,
		AuthKey:    cfg.authKey,
		ControlURL: cfg.controlURL,
		Logf:       discard,
		UserLogf:   discard,
	}
	ctx, cancel := context.WithTimeout(context.Background(), joinLimit)
	defer cancel()
	if _, err := node.Up(ctx); err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	return node, nil
}

// awaitPeer returns the IPv4 address of the node with this short name once it is
// online. Before it is in the netmap, Dial would go out over the host's network.
func awaitPeer(ctx context.Context, node *tsnet.Server, name string) (netip.Addr, error) {
	client, err := node.LocalClient()
	if err != nil {
		return netip.Addr{}, err
	}
	for {
		status, err := client.Status(ctx)
		if err != nil {
			return netip.Addr{}, fmt.Errorf("waiting for the node %s: %w", name, err)
		}
		if peer := peerNamed(status, name); peer != nil && peer.Online {
			for _, addr := range peer.TailscaleIPs {
				if addr.Is4() {
					return addr, nil
				}
			}
		}
		select {
		case <-ctx.Done():
			return netip.Addr{}, fmt.Errorf("the node %s did not join: %w", name, ctx.Err())
		case <-time.After(pollEvery):
		}
	}
}

func peerNamed(status *ipnstate.Status, name string) *ipnstate.PeerStatus {
	for _, peer := range status.Peer {
		if short, _, _ := strings.Cut(peer.DNSName, "."); short == name {
			return peer
		}
	}
	return nil
}

// awaitDirect pings until the path to addr is direct: otherwise the relay would
// be measured.
func awaitDirect(ctx context.Context, node *tsnet.Server, addr netip.Addr) error {
	client, err := node.LocalClient()
	if err != nil {
		return err
	}
	for {
		result, err := client.Ping(ctx, addr, tailcfg.PingDisco)
		if err != nil {
			return fmt.Errorf("pinging %s: %w", addr, err)
		}
		if result.Endpoint != "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no direct path to %s: %w", addr, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}
