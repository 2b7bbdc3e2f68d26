package web

// The parts of the package that the tests in package web_test use.
type (
	Overview         = overview
	OverviewRow      = overviewRow
	OverviewAnswer   = overviewAnswer
	OverviewBalancer = overviewBalancer
)

// HistorySlots is the length of Answers and Took in an OverviewRow.
const HistorySlots = historySlots
