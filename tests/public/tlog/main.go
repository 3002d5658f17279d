// Reads a ledger shard as any client of transparency logs would, with Go's own checksum-database code, and nothing of ours:
// tlog [-seen <signed checkpoint>] <shard folder or http address> <verifier key>...
package main

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// fetch reads one file of the log, from its folder or by HTTP.
func fetch(base, path string) ([]byte, error) {
	if !strings.HasPrefix(base, "http://") {
		return os.ReadFile(filepath.Join(base, path))
	}
	answer, err := http.Get(base + "/" + path)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusNotFound {
		return nil, os.ErrNotExist
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", path, answer.Status)
	}
	return io.ReadAll(answer.Body)
}

// reader maps Go's tile paths (tile/8/L/N) to those of C2SP tlog-tiles (tile/L/N).
type reader struct{ base string }

func (r reader) Height() int { return 8 }

func (r reader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		data, err := fetch(r.base, path)
		if errors.Is(err, os.ErrNotExist) && tile.W < 256 {
			full := tile
			full.W = 256
			path = strings.Replace(full.Path(), "tile/8/", "tile/", 1)
			if data, err = fetch(r.base, path); err == nil {
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

func entries(base string, size int64) [][]byte {
	var all [][]byte
	for at := int64(0); at < size; at += 256 {
		tile := tlog.Tile{H: 8, L: -1, N: at / 256, W: int(min(size-at, 256))}
		path := strings.Replace(tile.Path(), "tile/8/data", "tile/entries", 1)
		data, err := fetch(base, path)
		if errors.Is(err, os.ErrNotExist) && tile.W < 256 {
			data, err = fetch(base, strings.TrimSuffix(path, fmt.Sprintf(".p/%d", tile.W)))
		}
		if err != nil {
			log.Fatal(err)
		}
		for n := 0; len(data) > 0 && n < tile.W; n++ {
			length := int(binary.BigEndian.Uint16(data))
			all = append(all, data[2:2+length])
			data = data[2+length:]
		}
	}
	return all
}

// open reads a signed checkpoint: its lines, its size and its root.
func open(signed []byte, verifiers []note.Verifier) (*note.Note, []string, int64, tlog.Hash) {
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
	return opened, lines, size, root
}

func main() {
	seen := flag.String("seen", "", "a signed checkpoint kept from before, which the log has to extend")
	flag.Parse()
	base := flag.Arg(0)
	var verifiers []note.Verifier
	for _, key := range flag.Args()[1:] {
		verifier, err := note.NewVerifier(key)
		if err != nil {
			log.Fatal(err)
		}
		verifiers = append(verifiers, verifier)
	}
	signed, err := fetch(base, "checkpoint")
	if err != nil {
		log.Fatal(err)
	}
	opened, lines, size, root := open(signed, verifiers)
	hashes := tlog.TileHashReader(tlog.Tree{N: size, Hash: root}, reader{base})
	if *seen != "" {
		kept, err := os.ReadFile(*seen)
		if err != nil {
			log.Fatal(err)
		}
		_, _, old, before := open(kept, verifiers)
		if old > size {
			log.Fatalf("rolled back: it holds %d records, and %d were seen", size, old)
		}
		proof, err := tlog.ProveTree(size, old, hashes)
		if err != nil {
			log.Fatal(err)
		}
		if err := tlog.CheckTree(proof, size, root, old, before); err != nil {
			log.Fatalf("forked: it does not extend the checkpoint over %d records that was seen: %v", old, err)
		}
	}
	all := entries(base, size)
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
