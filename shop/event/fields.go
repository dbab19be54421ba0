package event

// The fields of each type, as its struct declares them. A test compares the JSON
// that comes of it with that of encoding/json.

func (l *Line) fields(c *codec) {
	c.text(`"sku":`, &l.SKU)
	c.maybeText(`"description":`, &l.Description)
	c.int64(`"quantity":`, &l.Quantity)
	c.money(`"price":`, &l.Price)
	c.maybeTrue(`"stocked":`, &l.Stocked)
	c.maybeTime(`"at":`, &l.At)
}

func (t *Trade) fields(c *codec) {
	c.maybeText(`"reference":`, &t.Reference)
	c.maybeText(`"customer":`, &t.Customer)
	c.maybeText(`"country":`, &t.Country)
	c.text(`"currency":`, &t.Currency)
	c.time(`"at":`, &t.At)
}

func (e *OrderPlaced) fields(c *codec) {
	c.text(`"order":`, &e.Order)
	e.Trade.fields(c)
	c.text(`"policy":`, &e.Policy)
	c.time(`"deadline":`, &e.Deadline)
	c.maybeText(`"simulate":`, &e.Simulate)
	c.text(`"body":`, &e.Body)
	c.lines(`"lines":`, &e.Lines)
	c.money(`"total":`, &e.Total)
}

func (e *OrderConfirmed) fields(c *codec) {
	c.text(`"order":`, &e.Order)
	e.Trade.fields(c)
	c.lines(`"lines":`, &e.Lines)
	c.maybeInt(`"dropped":`, &e.Dropped)
	c.money(`"amount":`, &e.Amount)
}

func (e *OrderRejected) fields(c *codec) {
	c.text(`"order":`, &e.Order)
	c.text(`"code":`, &e.Code)
	c.text(`"reason":`, &e.Reason)
	c.money(`"total":`, &e.Total)
	c.int(`"goods":`, &e.Goods)
	c.maybeInt(`"dropped":`, &e.Dropped)
}

func (e *OrderPaid) fields(c *codec) {
	c.text(`"order":`, &e.Order)
	c.money(`"amount":`, &e.Amount)
}

func (e *OrderCancelled) fields(c *codec) {
	c.text(`"order":`, &e.Order)
	e.Trade.fields(c)
	c.text(`"code":`, &e.Code)
	c.text(`"reason":`, &e.Reason)
	c.maybeLines(`"lines":`, &e.Lines)
	c.money(`"amount":`, &e.Amount)
}

func (e *OrderShipped) fields(c *codec) { c.text(`"order":`, &e.Order) }

func (e *OrderReturned) fields(c *codec) {
	c.text(`"return":`, &e.Return)
	c.maybeText(`"order":`, &e.Order)
	e.Trade.fields(c)
	c.text(`"body":`, &e.Body)
	c.lines(`"lines":`, &e.Lines)
	c.money(`"amount":`, &e.Amount)
	c.maybeTrue(`"complete":`, &e.Complete)
}

func (e *ProductDefined) fields(c *codec) {
	c.text(`"sku":`, &e.SKU)
	c.text(`"description":`, &e.Description)
	c.money(`"price":`, &e.Price)
	c.maybeInt64(`"received":`, &e.Received)
}

func (e *StockReserved) fields(c *codec) {
	c.text(`"order":`, &e.Order)
	c.maybeInts(`"dropped":`, &e.Dropped)
}

func (e *StockRejected) fields(c *codec) {
	c.text(`"order":`, &e.Order)
	c.text(`"code":`, &e.Code)
	c.maybeText(`"sku":`, &e.SKU)
	c.text(`"reason":`, &e.Reason)
}

func (e *StockCommitted) fields(c *codec) { c.text(`"order":`, &e.Order) }
func (e *StockReleased) fields(c *codec)  { c.text(`"order":`, &e.Order) }

func (e *StockRestocked) fields(c *codec) {
	c.maybeText(`"order":`, &e.Order)
	c.maybeText(`"return":`, &e.Return)
}

func (e *StockAdjusted) fields(c *codec) {
	c.text(`"movement":`, &e.Movement)
	e.Trade.fields(c)
	c.text(`"body":`, &e.Body)
	c.lines(`"lines":`, &e.Lines)
}

func (e *CallRequested) fields(c *codec) {
	c.text(`"order":`, &e.Order)
	c.text(`"step":`, &e.Step)
	c.money(`"amount":`, &e.Amount)
	c.maybeText(`"simulate":`, &e.Simulate)
}

func (e *PaymentAuthorized) fields(c *codec)    { orderAndAmount(c, &e.Order, &e.Amount) }
func (e *PaymentCaptured) fields(c *codec)      { orderAndAmount(c, &e.Order, &e.Amount) }
func (e *PaymentVoided) fields(c *codec)        { orderAndAmount(c, &e.Order, &e.Amount) }
func (e *PaymentRefunded) fields(c *codec)      { orderAndAmount(c, &e.Order, &e.Amount) }
func (e *PaymentDeclined) fields(c *codec)      { orderAndReason(c, &e.Order, &e.Reason) }
func (e *PaymentCaptureFailed) fields(c *codec) { orderAndReason(c, &e.Order, &e.Reason) }

func orderAndAmount(c *codec, order *string, amount *Money) {
	c.text(`"order":`, order)
	c.money(`"amount":`, amount)
}

func orderAndReason(c *codec, order, reason *string) {
	c.text(`"order":`, order)
	c.text(`"reason":`, reason)
}

func (e *InvoiceIssued) fields(c *codec) {
	c.text(`"order":`, &e.Order)
	c.text(`"series":`, &e.Series)
	c.int64(`"number":`, &e.Number)
	c.money(`"amount":`, &e.Amount)
}

func (e *CreditNoteIssued) fields(c *codec) {
	c.maybeText(`"order":`, &e.Order)
	c.maybeText(`"return":`, &e.Return)
	c.text(`"series":`, &e.Series)
	c.int64(`"number":`, &e.Number)
	c.money(`"amount":`, &e.Amount)
}

func (e *LedgerAdjusted) fields(c *codec) {
	c.text(`"adjustment":`, &e.Adjustment)
	e.Trade.fields(c)
	c.text(`"body":`, &e.Body)
	c.lines(`"lines":`, &e.Lines)
}
