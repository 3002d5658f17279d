// Reads a ledger shard as any client of transparency logs would, with Go's own checksum-database code, and nothing of ours:
// tlog <shard folder> <verifier key>...
package main

import (
	"encoding/binary"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// reader maps Go's tile paths (tile/8/L/N) to those of C2SP tlog-tiles (tile/L/N).
type reader struct{ folder string }

func (r reader) Height() int { return 8 }

func (r reader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		data, err := os.ReadFile(filepath.Join(r.folder, path))
		if os.IsNotExist(err) && tile.W < 256 {
			full := tile
			full.W = 256
			path = strings.Replace(full.Path(), "tile/8/", "tile/", 1)
			if data, err = os.ReadFile(filepath.Join(r.folder, path)); err == nil {
				data = data[:tile.W*tlog.HashSize]
			}
		}
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func (r reader) SaveTiles([]tlog.Tile, [][]byte) {}

func entries(folder string, size int64) [][]byte {
	var all [][]byte
	for at := int64(0); at < size; at += 256 {
		tile := tlog.Tile{H: 8, L: -1, N: at / 256, W: int(min(size-at, 256))}
		path := strings.Replace(tile.Path(), "tile/8/data", "tile/entries", 1)
		data, err := os.ReadFile(filepath.Join(folder, path))
		if err != nil {
			log.Fatal(err)
		}
		for len(data) > 0 {
			length := int(binary.BigEndian.Uint16(data))
			all = append(all, data[2:2+length])
			data = data[2+length:]
		}
	}
	return all
}

func main() {
	folder := os.Args[1]
	var verifiers []note.Verifier
	for _, key := range os.Args[2:] {
		verifier, err := note.NewVerifier(key)
		if err != nil {
			log.Fatal(err)
		}
		verifiers = append(verifiers, verifier)
	}
	signed, err := os.ReadFile(filepath.Join(folder, "checkpoint"))
	if err != nil {
		log.Fatal(err)
	}
	opened, err := note.Open(signed, note.VerifierList(verifiers...))
	if err != nil {
		log.Fatal(err)
	}
	lines := strings.Split(opened.Text, "\n")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		log.Fatal(err)
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		log.Fatal(err)
	}
	hashes := tlog.TileHashReader(tlog.Tree{N: size, Hash: root}, reader{folder})
	all := entries(folder, size)
	if int64(len(all)) != size {
		log.Fatalf("%d entries of %d", len(all), size)
	}
	step := max(size/97, 1)
	proofs := 0
	for index := int64(0); index < size; index += step {
		proof, err := tlog.ProveRecord(size, index, hashes)
		if err != nil {
			log.Fatal(err)
		}
		if err := tlog.CheckRecord(proof, size, root, index, tlog.RecordHash(all[index])); err != nil {
			log.Fatal(err)
		}
		proofs++
	}
	for old := int64(1); old <= size; old += step {
		before, err := tlog.TreeHash(old, hashes)
		if err != nil {
			log.Fatal(err)
		}
		proof, err := tlog.ProveTree(size, old, hashes)
		if err != nil {
			log.Fatal(err)
		}
		if err := tlog.CheckTree(proof, size, root, old, before); err != nil {
			log.Fatal(err)
		}
		proofs++
	}
	fmt.Printf("%s %d records, %d signatures known, %d others, %d proofs\n", lines[0], size, len(opened.Sigs), len(opened.UnverifiedSigs), proofs)
}
