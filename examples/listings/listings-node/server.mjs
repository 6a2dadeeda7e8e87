// This file listens where Branchline says, and ends when it is asked to, after the requests that are under way.

import { server } from "./listings.mjs";

const listening = server().listen(process.env.BRANCHLINE_SOCKET);
process.on("SIGTERM", () => listening.close(() => process.exit(0)));
