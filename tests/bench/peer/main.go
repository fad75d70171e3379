// Command peer is the benchmark's part of the tailnet: a node that requests tokens
// (load), and the plain Go token server that tailbone is measured against (serve).
//
// Both take the control URL, the state directory and the name as flags, the auth
// key from PEER_AUTHKEY, and speak JSON lines on standard output.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "peer: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("usage: peer load|serve -control URL -dir DIR -hostname NAME")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	var join joinConfig
	flags.StringVar(&join.controlURL, "control", "", "URL of the control server")
	flags.StringVar(&join.dir, "dir", "", "state directory, which exists")
	flags.StringVar(&join.hostname, "hostname", "", "name to ask for")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	join.authKey = os.Getenv("PEER_AUTHKEY")
	switch args[0] {
	case "load":
		return load(join)
	case "serve":
		return serve(join)
	}
	return fmt.Errorf("unknown command %q: allowed are load and serve", args[0])
}

// say writes one JSON line for the benchmark.
func say(v any) error { return json.NewEncoder(os.Stdout).Encode(v) }
