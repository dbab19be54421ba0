package retail

import (
	"bufio"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/freehold-go/freehold/shop/event"
)

// Columns is the header of an Online Retail file.
var Columns = []string{"InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"}

// dateLayout is month/day/year hour:minute, without a zone.
const dateLayout = "1/2/2006 15:04"

// Row is one invoice line of the file.
type Row struct {
	Line        int // in the file, the header is line 1
	Invoice     string
	Code        string
	Description string
	Quantity    int64
	At          time.Time
	Price       event.Money
	Customer    string // empty where the file has none
	Country     string
}

// Reject is a line that could not be used, and why.
type Reject struct {
	Line   int
	Reason string
	Text   string
}

// Reader reads rows of a .csv or .csv.gz file one at a time.
type Reader struct {
	csv     *csv.Reader
	closers []io.Closer
	counted *countingReader
	size    int64
	rejects func(Reject)
	limit   int
	rows    int
	refused int
}

// Open opens a file in the Online Retail form. Lines that are not what the form
// says go to rejects, which may be nil, and are passed over. limit stops behind
// that many data rows, good or bad; 0 reads all.
func Open(path string, limit int, rejects func(Reject)) (*Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("retail: %w: give the path of an Online Retail .csv or .csv.gz file", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("retail: %w", err)
	}
	if info.IsDir() {
		f.Close()
		return nil, fmt.Errorf("retail: %s is a directory: give the path of an Online Retail .csv or .csv.gz file", path)
	}
	r := &Reader{closers: []io.Closer{f}, size: info.Size(), rejects: rejects, limit: limit, counted: &countingReader{r: f}}
	buffered := bufio.NewReaderSize(r.counted, 1<<20)
	var in io.Reader = buffered
	if magic, _ := buffered.Peek(2); len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		gz, err := gzip.NewReader(buffered)
		if err != nil {
			r.Close()
			return nil, fmt.Errorf("retail: %s: %w: the file is damaged", path, err)
		}
		r.closers = append(r.closers, gz)
		in = gz
	}
	r.csv = csv.NewReader(in)
	r.csv.ReuseRecord = true
	r.csv.FieldsPerRecord = -1
	r.csv.LazyQuotes = true
	header, err := r.csv.Read()
	if err != nil {
		r.Close()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("retail: %s is empty: want a header with %s", path, strings.Join(Columns, ","))
		}
		return nil, fmt.Errorf("retail: %s: %w", path, err)
	}
	header[0] = strings.TrimPrefix(header[0], "\ufeff")
	if !slices.Equal(header, Columns) {
		r.Close()
		return nil, fmt.Errorf("retail: %s has columns %.120q: want %s", path, strings.Join(header, ","), strings.Join(Columns, ","))
	}
	return r, nil
}

// Close releases the file.
func (r *Reader) Close() error {
	var errs []error
	for _, c := range slices.Backward(r.closers) {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// Progress is the share of the file that has been read, from 0 to 1.
func (r *Reader) Progress() float64 {
	if r.size == 0 {
		return 1
	}
	return float64(r.counted.n) / float64(r.size)
}

// Rows is how many data rows have been read, rejected ones included.
func (r *Reader) Rows() int { return r.rows }

// Rejected is how many data rows were rejected.
func (r *Reader) Rejected() int { return r.refused }

// maxRow is how long a row may be in bytes; one quotation mark too many would make
// the rest of the file a single row.
const maxRow = 64 << 10

// Next returns the next good row, or io.EOF.
func (r *Reader) Next() (Row, error) {
	for {
		if r.limit > 0 && r.rows >= r.limit {
			return Row{}, io.EOF
		}
		begin := r.csv.InputOffset()
		record, err := r.csv.Read()
		line, _ := r.csv.FieldPos(0)
		var bad *csv.ParseError
		switch {
		case errors.Is(err, io.EOF):
			return Row{}, io.EOF
		case errors.As(err, &bad):
			r.rows++
			r.reject(bad.StartLine, bad.Err.Error(), record)
			continue
		case err != nil:
			return Row{}, fmt.Errorf("retail: behind line %d: %w: the file is damaged or cut off", line, err)
		}
		if size := r.csv.InputOffset() - begin; size > maxRow {
			return Row{}, fmt.Errorf("retail: line %d: a quotation mark is opened and not closed within %d bytes: correct the line", line, maxRow)
		}
		r.rows++
		row, err := parse(record)
		if err != nil {
			r.reject(line, err.Error(), record)
			continue
		}
		row.Line = line
		return row, nil
	}
}

func (r *Reader) reject(line int, reason string, record []string) {
	r.refused++
	if r.rejects != nil {
		r.rejects(Reject{Line: line, Reason: reason, Text: strings.Join(record, ",")})
	}
}

func parse(f []string) (Row, error) {
	if len(f) != len(Columns) {
		return Row{}, fmt.Errorf("%d fields, want %d", len(f), len(Columns))
	}
	row := Row{Invoice: strings.Clone(f[0]), Code: strings.Clone(f[1]), Description: strings.Clone(f[2]), Customer: strings.Clone(f[6]), Country: strings.Clone(f[7])}
	switch {
	case row.Invoice == "" || len(row.Invoice) > 32:
		return row, errors.New("column InvoiceNo is empty or over 32 bytes")
	case row.Code == "" || len(row.Code) > 32:
		return row, errors.New("column StockCode is empty or over 32 bytes")
	case row.Country == "" || len(row.Country) > 64:
		return row, errors.New("column Country is empty or over 64 bytes")
	case len(row.Customer) > 32:
		return row, errors.New("column CustomerID is over 32 bytes")
	case len(row.Description) > 200:
		return row, errors.New("column Description is over 200 bytes")
	}
	var err error
	if row.Quantity, err = strconv.ParseInt(f[3], 10, 64); err != nil {
		return row, fmt.Errorf("column Quantity %.30q is not a whole number of 64 bits", f[3])
	}
	if row.Quantity == 0 || row.Quantity > event.MaxQuantity || row.Quantity < -event.MaxQuantity {
		return row, fmt.Errorf("column Quantity %d: want 1 to %d, or negative", row.Quantity, int64(event.MaxQuantity))
	}
	if row.At, err = time.Parse(dateLayout, f[4]); err != nil {
		return row, fmt.Errorf("column InvoiceDate %.30q is not month/day/year hour:minute", f[4])
	}
	if row.Price, err = event.ParseMoney(f[5]); err != nil {
		return row, fmt.Errorf("column UnitPrice %.30q is not an amount with at most 3 decimals", f[5])
	}
	if value, err := row.Price.Times(row.Quantity); err != nil || value > event.MaxAmount || value < -event.MaxAmount {
		return row, fmt.Errorf("column Quantity %d times UnitPrice %s is too large: want at most %s", row.Quantity, row.Price, event.MaxAmount)
	}
	return row, nil
}

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
