// Package main is libtsnet: Tailscale's tsnet as a C shared library for the
// tailbone Python package. exports.go lists the C functions.
package main
